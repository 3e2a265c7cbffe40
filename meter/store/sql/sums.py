"""The statement of the sums of transactions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CompoundSelect, Select, and_, case, func, select, union_all
from sqlalchemy.sql.elements import ColumnElement

from meter.clock import DAY_MS
from meter.store.plan_rows import PastPlanRow, SubscriptionRow
from meter.store.rows import TransactionRow
from meter.store.sql.tables import table_of
from meter.store.sums import CHARGED_KINDS, SUMMED_KINDS, Wanted

_transactions = table_of(TransactionRow).c
_subscriptions = table_of(SubscriptionRow).c
_past_plans = table_of(PastPlanRow).c


def sums(wanted: Wanted, after: str, limit: int) -> Select[Any]:
    """Sums by key, in the order of keys, after that one. The keys are made in an inner statement, so that each database
    sees one expression to group by.
    """
    keys: dict[str, ColumnElement[Any]] = {
        "user": _transactions.user_id,
        "day": _transactions.created_at_ms // DAY_MS,
        "metadata": _transactions.metadata[wanted.member].as_string(),
    }
    inner = (_by_plan(wanted) if wanted.by == "plan" else _chosen(keys[wanted.by], wanted)).subquery().c
    found = select(
        inner.key,
        _sum(inner.kind.in_(CHARGED_KINDS), 1),
        _sum(inner.kind.in_(CHARGED_KINDS), inner.amount),
        _sum(inner.kind == "refund", inner.amount),
        _sum(inner.kind == "grant", inner.amount),
    ).where(inner.key.is_not(None))
    if after:
        found = found.where(inner.key > (int(after) if wanted.by == "day" else after))
    return found.group_by(inner.key).order_by(inner.key).limit(limit)


def _chosen(key: ColumnElement[Any], wanted: Wanted) -> Select[Any]:
    """The transactions that are added up, each with its key."""
    rows = select(key.label("key"), _transactions.kind, _transactions.amount)
    rows = rows.where(_transactions.kind.in_(SUMMED_KINDS))
    if wanted.user_id is not None:
        rows = rows.where(_transactions.user_id == wanted.user_id)
    if wanted.from_ms is not None:
        rows = rows.where(_transactions.created_at_ms >= wanted.from_ms)
    if wanted.to_ms is not None:
        rows = rows.where(_transactions.created_at_ms < wanted.to_ms)
    return rows


def _by_plan(wanted: Wanted) -> CompoundSelect[Any]:
    """Each with the plan that its user had then: one that is over, or the one that lasts."""
    at_ms = _transactions.created_at_ms
    over = _chosen(_past_plans.plan_id, wanted).join_from(
        table_of(TransactionRow),
        table_of(PastPlanRow),
        and_(
            _past_plans.user_id == _transactions.user_id,
            _past_plans.from_ms <= at_ms,
            _past_plans.until_ms > at_ms,
        ),
    )
    lasting = _chosen(_subscriptions.plan_id, wanted).join_from(
        table_of(TransactionRow),
        table_of(SubscriptionRow),
        and_(
            _subscriptions.user_id == _transactions.user_id,
            _subscriptions.state != "ended",
            func.coalesce(_subscriptions.plan_since_ms, _subscriptions.created_at_ms) <= at_ms,
        ),
    )
    return union_all(over, lasting)


def _sum(when: ColumnElement[bool], value: Any) -> ColumnElement[Any]:
    return func.sum(case((when, value), else_=0))
