"""What a call, or the passing of time, makes of a subscription: the rules of docs/plans.md.

Pure: a row, the terms of plans and a time go in, a `Step` comes out; nothing of it is done yet. The rows that go in are
up to date (`advanced`), except for `advanced` itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import JsonValue

from meter.clock import UnknownTimeZone, period_number, period_start_ms, time_zone
from meter.ledger.plan_rules import BOUNDS_TOLD, bounds_of, rules_of
from meter.plans.entitlement import Given, NewGrant, dead_until_ms, grants_of, owed, read_given
from meter.plans.terms import CannotPlan, Terms
from meter.store.plan_rows import NO_PRICES, ErrandRow, PastPlanRow, PlanTermsRow, SubscriptionRow
from meter.store.rows import AlertRow

ACTIVE, ENDED, SET_ASIDE = "active", "ended", "set_aside"
PERIODS_MAX = 500
"""How many periods one step gives; what is missed beyond is due still, for the next step."""


@dataclass(frozen=True, slots=True)
class Step:
    """The next version of a subscription, and what has to be written with it. `row` may be the one that went in."""

    row: SubscriptionRow
    grants: Sequence[NewGrant] = ()
    alerts: Sequence[AlertRow] = ()
    errands: Sequence[ErrandRow] = ()
    past: Sequence[PastPlanRow] = ()


def is_due(row: SubscriptionRow, now_ms: int) -> bool:
    """Whether its period has ended and nobody has dealt with that."""
    return row.state != ENDED and row.next_period_at_ms <= now_ms


def advanced(row: SubscriptionRow, terms: Terms, now_ms: int) -> Step:
    """Moves a subscription that is due on to `now_ms`, or as far as one step goes. Raises `CannotPlan`."""
    moved = row.model_copy(update={"state": ACTIVE, "fault": None})
    grants: list[NewGrant] = []
    alerts: list[AlertRow] = []
    past: list[PastPlanRow] = []
    for _ in range(PERIODS_MAX):
        if not is_due(moved, now_ms):
            break
        if not _follows(moved):
            over = _version(row, _over(moved, moved.next_period_at_ms, moved.unspent))
            errands = [*_voids(over), *_news(row, over)]
            return Step(over, grants, [*alerts, _alert("ended", over)], errands, [*past, *_past(moved, over)])
        before, (moved, made) = moved, _next_period(moved, terms, now_ms)
        past += _past(before, moved)
        grants += made
        if made or not is_due(moved, now_ms):
            alerts.append(_alert("renewed", moved))
    moved = _version(row, moved)
    return Step(moved, grants, alerts, _news(row, moved), past)


@dataclass(frozen=True, slots=True)
class Asked:
    """What `PUT` asks for; None where a member is not sent."""

    auto_renew: bool | None = None
    time_zone: str | None = None
    anchor_ms: int | None = None
    metadata: JsonValue = None
    has_metadata: bool = False


def begun(
    user_id: str, group: str, terms: PlanTermsRow, asked: Asked, now_ms: int, before: SubscriptionRow | None
) -> Step:
    """A new subscription, in the period of its anchor that lies around `now_ms`; `before` is one that has ended."""
    anchor_ms = now_ms if asked.anchor_ms is None else asked.anchor_ms
    unit, zone = terms.billing_period, time_zone(asked.time_zone or "UTC")
    number = period_number(anchor_ms, unit, now_ms, zone)
    row = SubscriptionRow(
        user_id=user_id,
        plan_group=group,
        subscription_id=f"s_{secrets.token_urlsafe(9)}",
        plan_id=terms.plan_id,
        auto_renew=asked.auto_renew is not False,
        anchor_at_ms=anchor_ms,
        billing_period=unit,
        time_zone=zone.key,
        period=number,
        period_started_at_ms=period_start_ms(anchor_ms, unit, number, zone),
        next_period_at_ms=period_start_ms(anchor_ms, unit, number + 1, zone),
        given=[],
        rate_card=terms.rate_card,
        price_multiplier=terms.price_multiplier,
        rules=terms.rules,
        metadata=asked.metadata,
        created_at_ms=now_ms,
        updated_at_ms=now_ms,
        plan_since_ms=now_ms,
        version=1 if before is None else before.version + 1,
    )
    made, grants = _given_whole(row, terms, [], now_ms)
    return Step(made, grants, errands=_news(before, made))


def adjusted(row: SubscriptionRow, asked: Asked, now_ms: int) -> Step:
    """The subscription with what was sent set; an end that was to come may be taken back."""
    members: dict[str, object] = {}
    if asked.auto_renew is not None and asked.auto_renew != row.auto_renew:
        members["auto_renew"] = asked.auto_renew
        members |= {"unspent": "stay"} if asked.auto_renew else {}
    if asked.has_metadata and asked.metadata != row.metadata:
        members["metadata"] = asked.metadata
    return _changed(row, now_ms, members)


def change_taken_back(row: SubscriptionRow, now_ms: int) -> Step:
    """The subscription without the change that was to come."""
    return _changed(row, now_ms, {} if row.next_plan_id is None else {"next_plan_id": None})


def change_to_come(row: SubscriptionRow, plan_id: str, now_ms: int) -> Step:
    """The other plan follows at the period's end."""
    return _changed(row, now_ms, {} if row.next_plan_id == plan_id else {"next_plan_id": plan_id})


def changed_afresh(row: SubscriptionRow, chosen: PlanTermsRow, now_ms: int) -> Step:
    """A period of the other plan begins; the rest of the old grants is void."""
    fresh, grants = _given_whole(_anew(row, chosen, now_ms), chosen, [], now_ms)
    fresh = _version(row, fresh)
    errands = [_errand("void", fresh, given_of(row)), *_news(row, fresh)]
    return Step(fresh, grants, errands=errands, past=_past(row, fresh))


def changed_by_difference(row: SubscriptionRow, chosen: PlanTermsRow, terms: Terms, now_ms: int) -> Step:
    """The other plan, with what it gives more than was given, for the rest of the period; where the units differ, for a
    period that begins now.
    """
    given = given_of(row, terms)
    if chosen.billing_period != _unit(row, terms):
        fresh, grants = _given_whole(_anew(row, chosen, now_ms), chosen, given, now_ms)
        fresh = _version(row, fresh)
        return Step(fresh, grants, errands=_news(row, fresh), past=_past(row, fresh))
    start, end = row.period_started_at_ms, row.next_period_at_ms
    at_ms = max(now_ms, start)
    part = f"{row.subscription_id}.{row.period}."
    grants = grants_of(
        chosen,
        f"{part}{1 + sum(one.grant_id.startswith(part) for one in given)}",
        owed(chosen.credit_limit, (start, end), at_ms, given),
        group=row.plan_group,
        renews=row.auto_renew,
        from_ms=at_ms,
        counted_from_ms=max(start, row.created_at_ms),
        until_ms=end,
        now_ms=at_ms,
    )
    given += [Given(one.grant_id, one.amount, at_ms, end) for one in grants]
    members: dict[str, object] = {"plan_id": chosen.plan_id, "next_plan_id": None, "given": _packed(given)}
    members |= _said(chosen)
    step = _changed(row, now_ms, {**members, "plan_since_ms": now_ms})
    return Step(step.row, grants, errands=step.errands, past=_past(row, step.row))


def ended(
    row: SubscriptionRow, when: Literal["now", "period_end"], unspent: Literal["stay", "void"], now_ms: int
) -> Step:
    """The subscription ended, or to end with its period. One that has ended can still have its rest voided."""
    if row.state == ENDED:
        if (row.unspent, unspent) != ("stay", "void"):
            return Step(row)
        over = _version(row, row.model_copy(update={"unspent": unspent, "updated_at_ms": now_ms}))
        return Step(over, errands=_voids(over))
    if when == "period_end":
        members: dict[str, object] = {"auto_renew": False, "next_plan_id": None, "unspent": unspent}
        differs = any(getattr(row, name) != value for name, value in members.items())
        return _changed(row, now_ms, members if differs else {})
    over = _version(row, _over(row, now_ms, unspent))
    errands = [*_voids(over), *_renewals(row, over), *_news(row, over)]
    return Step(over, alerts=[_alert("ended", over)], errands=errands, past=_past(row, over))


def given_of(row: SubscriptionRow, terms: Terms | None = None) -> list[Given]:
    """What was given for the current period and for later ones; without `terms` amounts of an old row count as 0."""
    start, end = row.period_started_at_ms, row.next_period_at_ms
    limit = 0 if terms is None or row.given is not None else terms.at(row.plan_id, start).credit_limit
    return read_given(row.given, [Given(f"{row.subscription_id}.{row.period}", limit, start, end)])


def _next_period(row: SubscriptionRow, terms: Terms, now_ms: int) -> tuple[SubscriptionRow, list[NewGrant]]:
    """The next period of which something is left by now, else the last one that has begun; and what it gives."""
    at_ms = row.next_period_at_ms
    given = given_of(row, terms)
    chosen = terms.at(row.next_plan_id or row.plan_id, at_ms)
    if row.next_plan_id is not None or chosen.billing_period != _unit(row, terms):
        return _given_whole(_anew(row, chosen, at_ms), chosen, given, now_ms)
    zone, anchor_ms, unit = _zone(row), row.anchor_at_ms, chosen.billing_period
    last_ms = terms.last_ms(row.plan_id, at_ms)
    horizon_ms = now_ms if last_ms is None else min(now_ms, last_ms)
    first = row.period + 1
    last = max(first, period_number(anchor_ms, unit, max(anchor_ms, horizon_ms), zone))
    edge, dead_ms = dead_until_ms(chosen, now_ms)
    alive = 0
    if dead_ms >= anchor_ms:
        alive = period_number(anchor_ms, unit, dead_ms, zone) + (edge == "start")
    number = min(last, max(first, alive))
    start = at_ms if number == first else period_start_ms(anchor_ms, unit, number, zone)
    members = {
        "period": number,
        "billing_period": unit,
        "period_started_at_ms": start,
        "next_period_at_ms": period_start_ms(anchor_ms, unit, number + 1, zone),
        "updated_at_ms": start,
        **_said(chosen),
    }
    return _given_whole(row.model_copy(update=members), chosen, given, now_ms)


def _given_whole(
    row: SubscriptionRow, terms: PlanTermsRow, given: Sequence[Given], now_ms: int
) -> tuple[SubscriptionRow, list[NewGrant]]:
    """A row at the beginning of its period with what that gives: the limit, less what was given for its time before."""
    start, end = row.period_started_at_ms, row.next_period_at_ms
    kept = [one for one in given if one.until_ms > start]
    if end <= start:  # a day that the zone left out
        return row.model_copy(update={"given": _packed(kept)}), []
    name, amount = f"{row.subscription_id}.{row.period}", owed(terms.credit_limit, (start, end), start, kept)
    begins_ms = max(start, row.created_at_ms)
    grants = grants_of(
        terms,
        name,
        amount,
        group=row.plan_group,
        renews=_follows(row),
        from_ms=begins_ms,
        counted_from_ms=begins_ms,
        until_ms=end,
        now_ms=now_ms,
    )
    kept += [Given(name, amount, start, end)] if amount else []
    return row.model_copy(update={"given": _packed(kept)}), grants


def _anew(row: SubscriptionRow, terms: PlanTermsRow, at_ms: int) -> SubscriptionRow:
    """The row as a subscription of its own: its periods count anew from `at_ms`. The same row makes the same id."""
    digest = blake2b(f"{row.subscription_id} {at_ms} {terms.plan_id}".encode(), digest_size=9).hexdigest()
    members = {
        "subscription_id": f"s_{digest}",
        "plan_id": terms.plan_id,
        "billing_period": terms.billing_period,
        "anchor_at_ms": at_ms,
        "period": 0,
        "period_started_at_ms": at_ms,
        "next_period_at_ms": period_start_ms(at_ms, terms.billing_period, 1, _zone(row)),
        "next_plan_id": None,
        "created_at_ms": at_ms,
        "updated_at_ms": at_ms,
        "plan_since_ms": _since(row) if terms.plan_id == row.plan_id else at_ms,
        **_said(terms),
    }
    return row.model_copy(update=members)


def _over(row: SubscriptionRow, at_ms: int, unspent: str) -> SubscriptionRow:
    members = {"state": ENDED, "fault": None, "next_plan_id": None, "unspent": unspent, "updated_at_ms": at_ms}
    return row.model_copy(update=members)


def _since(row: SubscriptionRow) -> int:
    return row.created_at_ms if row.plan_since_ms is None else row.plan_since_ms


def _past(before: SubscriptionRow, row: SubscriptionRow) -> list[PastPlanRow]:
    """The plan of before, where the user does not have it any more; none that nobody had for a moment."""
    if row.state != ENDED and row.plan_id == before.plan_id:
        return []
    from_ms, until_ms = _since(before), row.updated_at_ms if row.state == ENDED else _since(row)
    if from_ms >= until_ms:
        return []
    return [
        PastPlanRow(
            user_id=row.user_id,
            plan_group=row.plan_group,
            from_ms=from_ms,
            until_ms=until_ms,
            plan_id=before.plan_id,
        )
    ]


def _changed(row: SubscriptionRow, now_ms: int, members: dict[str, object]) -> Step:
    """The row with other members; the same row where there are none."""
    if not members:
        return Step(row)
    changed = _version(row, row.model_copy(update={"updated_at_ms": now_ms, **members}))
    return Step(changed, errands=[*_renewals(row, changed), *_news(row, changed)])


def _version(before: SubscriptionRow, row: SubscriptionRow) -> SubscriptionRow:
    return row.model_copy(update={"version": before.version + 1})


def _voids(over: SubscriptionRow) -> list[ErrandRow]:
    """What an end voids, where it does."""
    return [_errand("void", over, given_of(over))] if over.unspent == "void" else []


def _renewals(before: SubscriptionRow, row: SubscriptionRow) -> list[ErrandRow]:
    """The grants of the period are told where a renewal does not follow them any more, or does again."""
    if _follows(before) == _follows(row):
        return []
    return [_errand("renew" if _follows(row) else "lapse", row, given_of(before))]


def _said(terms: PlanTermsRow) -> dict[str, object]:
    """What a period of these terms says of prices and rules."""
    return {"rate_card": terms.rate_card, "price_multiplier": terms.price_multiplier, "rules": terms.rules}


def _news(before: SubscriptionRow | None, row: SubscriptionRow) -> list[ErrandRow]:
    """What Redis is told of what the plan says besides its grants."""
    return [*_prices(before, row), *_rules(before, row)]


def _rules(before: SubscriptionRow | None, row: SubscriptionRow) -> list[ErrandRow]:
    """Rules are told where they are others than before, or periods begin elsewhere than was told."""
    if rules_of(row) == (None if before is None else rules_of(before)) and _bounds_key(before) == _bounds_key(row):
        return []
    if before is None and row.rules is None:
        return []
    bounds: list[JsonValue] = [*bounds_of(row, _zone(row))]
    told: JsonValue = [[row.plan_group, row.version, rules_of(row), bounds]]
    return [_errand("rules", row, ()).model_copy(update={"grants": told})]


def _bounds_key(row: SubscriptionRow | None) -> object:
    """What bounds follow from, as far as they have to be told again."""
    if row is None:
        return None
    block = row.period // (BOUNDS_TOLD // 2)
    return row.anchor_at_ms, row.billing_period, row.time_zone, block


def _prices(before: SubscriptionRow | None, row: SubscriptionRow) -> list[ErrandRow]:
    """Prices are told where they are others than before."""
    said = row.prices
    if said == (NO_PRICES if before is None else before.prices):
        return []
    told: JsonValue = [[row.plan_group, row.version, *said]]
    return [_errand("prices", row, ()).model_copy(update={"grants": told})]


def _errand(kind: str, row: SubscriptionRow, given: Sequence[Given]) -> ErrandRow:
    return ErrandRow(
        errand_id=f"{kind}.{row.subscription_id}.{row.version}",
        kind=kind,
        user_id=row.user_id,
        grants=[[one.grant_id, one.until_ms] for one in given],
        created_at_ms=row.updated_at_ms,
    )


def _alert(kind: Literal["renewed", "ended"], row: SubscriptionRow) -> AlertRow:
    """The news that something became of a subscription, once per period."""
    return AlertRow(
        alert_id=f"subscription_{kind}.{row.subscription_id}.{row.period}",
        kind=f"subscription_{kind}",
        user_id=row.user_id,
        payload={
            "subscription_id": row.subscription_id,
            "plan_id": row.plan_id,
            "plan_group": row.plan_group,
            "period": row.period,
            "period_started_at_ms": row.period_started_at_ms,
            "next_period_at_ms": row.next_period_at_ms,
        },
        created_at_ms=row.updated_at_ms,
    )


def _follows(row: SubscriptionRow) -> bool:
    """Whether another period follows the current one."""
    return row.state != ENDED and (row.auto_renew or row.next_plan_id is not None)


def _unit(row: SubscriptionRow, terms: Terms) -> str:
    return row.billing_period or terms.at(row.plan_id, row.period_started_at_ms).billing_period


def _zone(row: SubscriptionRow) -> ZoneInfo:
    try:
        return time_zone(row.time_zone)
    except UnknownTimeZone as error:
        raise CannotPlan(str(error)) from None


def _packed(given: Sequence[Given]) -> JsonValue:
    return [[one.grant_id, one.amount, one.from_ms, one.until_ms] for one in given]
