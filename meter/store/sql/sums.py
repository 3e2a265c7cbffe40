"""The statement of the sums of transactions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, case, func, select
from sqlalchemy.sql.elements import ColumnElement

from meter.clock import DAY_MS
from meter.store.rows import SubscriptionRow, TransactionRow
from meter.store.sql.tables import table_of
from meter.store.sums import CHARGED_KINDS, SUMMED_KINDS, Wanted

_transactions = table_of(TransactionRow).c
_subscriptions = table_of(SubscriptionRow).c


def sums(wanted: Wanted, after: str, limit: int) -> Select[Any]:
    """Sums by key, in the order of keys, after that one. The keys are made in an inner statement, so that each database
    sees one expression to group by.
    """
    keys: dict[str, ColumnElement[Any]] = {
        "user": _transactions.user_id,
        "day": _transactions.created_at_ms // DAY_MS,
        "plan": _subscriptions.plan_id,
        "metadata": _transactions.metadata[wanted.member].as_string(),
    }
    rows = select(keys[wanted.by].label("key"), _transactions.kind, _transactions.amount)
    rows = rows.where(_transactions.kind.in_(SUMMED_KINDS))
    if wanted.by == "plan":
        rows = rows.join_from(
            table_of(TransactionRow),
            table_of(SubscriptionRow),
            (_subscriptions.user_id == _transactions.user_id) & (_subscriptions.state != "ended"),
        )
    if wanted.user_id is not None:
        rows = rows.where(_transactions.user_id == wanted.user_id)
    if wanted.from_ms is not None:
        rows = rows.where(_transactions.created_at_ms >= wanted.from_ms)
    if wanted.to_ms is not None:
        rows = rows.where(_transactions.created_at_ms < wanted.to_ms)
    inner = rows.subquery().c
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


def _sum(when: ColumnElement[bool], value: Any) -> ColumnElement[Any]:
    return func.sum(case((when, value), else_=0))
