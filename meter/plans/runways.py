"""The runway of a user, by usage figures, grants and subscriptions as the store has them; and who is told of it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from meter.clock import DAY_MS, HOUR_MS
from meter.engine.at_end import read_at_end
from meter.plans.planner import advanced
from meter.plans.runway import (
    HISTORY_MS,
    HORIZON_MS,
    WINDOW_MS,
    Forecast,
    Lot,
    Pace,
    confidence_of,
    forecast,
    judged,
)
from meter.plans.steps import terms_for
from meter.plans.terms import CannotPlan, Terms
from meter.store.base import Store
from meter.store.catalog import Change
from meter.store.plan_rows import SubscriptionRow
from meter.store.rows import AlertRow, GrantRow, RunwayRow
from meter.store.sums import CHARGED_KINDS
from meter.store.usage import UsageSum, UsageWanted

PAGE = 500
BUCKETS_MAX = 1_000
PERIODS_MAX = 400
"""Of one subscription that are looked ahead; days of a year and some."""


@dataclass(frozen=True, slots=True)
class Runway:
    """How long the credits of a user last. Without a pace (too little history) nothing is said."""

    available: int
    pace: Pace | None
    forecast: Forecast | None

    def left_ms(self, now_ms: int) -> int | None:
        """How long there is something left; None: no end is known."""
        runs_out_at_ms = self.forecast.runs_out_at_ms if self.forecast is not None else None
        return None if runs_out_at_ms is None else runs_out_at_ms - now_ms


class Runways:
    """Answers how long credits last. Raises `StoreUnavailable`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def of(self, user_id: str, now_ms: int) -> Runway:
        """The runway of a user, by the store."""
        account = (await self._store.accounts([user_id])).get(user_id)
        grants = await self._store.live_grants([user_id])
        lots = [_lot(row) for row in grants]
        alive = [lot for lot in lots if lot.effective_at_ms <= now_ms < lot.expires_at_ms]
        available = int(sum(lot.amount for lot in alive))
        pace = await self._pace(user_id, now_ms)
        if pace is None:
            return Runway(available, None, None)
        known = {lot.grant_id for lot in lots}
        coming = [lot for lot in await self._renewals(user_id, now_ms) if lot.grant_id not in known]
        return Runway(available, pace, forecast([*lots, *coming], account.debt if account else 0, pace, now_ms))

    async def _pace(self, user_id: str, now_ms: int) -> Pace | None:
        of_user = UsageWanted(("hour",), path=user_id, only=True)
        first = await self._store.usage_sums(of_user, (), 1)
        if not first or not await self._has_history(user_id, int(first[0].key[0]), now_ms):
            return None
        from_ms = now_ms - WINDOW_MS
        from_ms -= from_ms % HOUR_MS
        start_ms = max(from_ms, int(first[0].key[0]))
        hours = await self._store.usage_sums(UsageWanted(("hour",), user_id, from_ms, only=True), (), BUCKETS_MAX)
        span_ms = now_ms - start_ms
        days = [0] * -(-span_ms // DAY_MS)
        for one in hours:
            days[min(max(0, now_ms - 1 - int(one.key[0])) // DAY_MS, len(days) - 1)] += _net(one)
        return Pace(sum(map(_net, hours)), span_ms, confidence_of(days[: span_ms // DAY_MS], span_ms))

    async def _has_history(self, user_id: str, first_ms: int, now_ms: int) -> bool:
        """Whether the first charge is long enough ago; a bucket does not say when in it."""
        since_ms = now_ms - HISTORY_MS
        if first_ms + HOUR_MS <= since_ms or first_ms > since_ms:
            return first_ms <= since_ms
        kinds = CHARGED_KINDS
        return bool(await self._store.history(user_id, kinds=kinds, to_ms=since_ms + 1, limit=1))

    async def _renewals(self, user_id: str, now_ms: int) -> list[Lot]:
        """What subscriptions will give, period by period, by the terms of today."""
        rows = await self._store.find(SubscriptionRow, {"user_id": user_id}, order_by="plan_group", limit=PAGE)
        found: list[Lot] = []
        for row in rows:
            try:
                found += _renewals_of(row, await terms_for(self._store, [row]), now_ms)
            except (CannotPlan, ValueError):
                continue  # it is set aside, and gives nothing until somebody sees to it
        return found


async def warn_page(store: Store, now_ms: int, days: Sequence[int], after: str | None) -> tuple[int, str | None]:
    """Judges a page of users behind that one and puts the alerts of those whose credits run out soon into the store:
    first users who were told (`!` in front), then all who spent something of late. Answers how many alerts were new,
    and where the next page begins; None when this was the last.
    """
    if not days:
        return 0, None
    place = "!" if after is None else after
    if place.startswith("!"):
        added, following = await _judge_told(store, now_ms, days, place.removeprefix("!"))
        if following is not None:
            return added, following
        place = ""
    window_ms = now_ms - WINDOW_MS - (now_ms - WINDOW_MS) % HOUR_MS
    wanted = UsageWanted(("user", "day"), from_ms=window_ms)
    sums = await store.usage_sums(wanted, (place, 2**40) if place else (), PAGE)
    users = list(dict.fromkeys(str(one.key[0]) for one in sums))
    is_last = len(sums) < PAGE
    if not is_last and len(users) > 1:
        users = users[:-1]  # whose other days are on the next page
    near = await _near(store, now_ms, days[-1], {user: [one for one in sums if one.key[0] == user] for user in users})
    return sum([await _judge(store, user, now_ms, days) for user in near]), None if is_last else users[-1]


async def _judge_told(store: Store, now_ms: int, days: Sequence[int], after: str) -> tuple[int, str | None]:
    """The same of those who were told; None where there was nobody left."""
    place = (after, after) if after else None
    rows = await store.find(RunwayRow, {}, order_by="user_id", after=place, limit=PAGE)
    added = sum([await _judge(store, row.user_id, now_ms, days) for row in rows])
    return added, f"!{rows[-1].user_id}" if rows else None


async def _near(store: Store, now_ms: int, most_days: int, spent: dict[str, list[UsageSum]]) -> list[str]:
    """Users whose credits may run out so soon, at the fastest pace that their days allow."""
    grants: dict[str, int] = dict.fromkeys(spent, 0)
    until_ms = now_ms + most_days * DAY_MS
    for row in await store.live_grants(list(spent)):
        if row.expires_at_ms > until_ms and row.effective_at_ms <= now_ms:
            grants[row.user_id] += row.remaining
    found: list[str] = []
    for user, sums in spent.items():
        span_ms = max(HISTORY_MS, now_ms - min(int(one.key[1]) for one in sums) * DAY_MS - DAY_MS)
        if grants[user] * span_ms <= sum(map(_net, sums)) * most_days * DAY_MS:
            found.append(user)
    return found


async def _judge(store: Store, user_id: str, now_ms: int, days: Sequence[int]) -> int:
    """Tells of one user what is to be told; how many alerts that are. Of two processes at it, one does."""
    runway, row = await Runways(store).of(user_id, now_ms), await store.get(RunwayRow, user_id)
    if runway.pace is None:
        return 0
    left_ms = runway.left_ms(now_ms)
    verdict = judged(days, None if row is None else row.days, left_ms)
    if verdict.told == (None if row is None else row.days):
        return 0
    if verdict.told is None:
        await store.remove([] if row is None else [row])
        return 0
    made = RunwayRow(user_id=user_id, days=verdict.told, created_at_ms=now_ms)
    alerts = [] if verdict.alert is None else [_alert(user_id, verdict.alert, runway, now_ms)]
    if row is None:
        done = await store.commit(Change(new=[made], missing=alerts))
    else:
        done = await store.commit(Change([made.model_copy(update={"version": row.version + 1})], missing=alerts))
    return len(alerts) if done else 0


def _alert(user_id: str, days: int, runway: Runway, now_ms: int) -> AlertRow:
    runs_out_at_ms = runway.forecast.runs_out_at_ms if runway.forecast is not None else None
    return AlertRow(
        alert_id=f"runs_out_soon.{secrets.token_hex(12)}",  # who tells it holds the row of the user
        kind="runs_out_soon",
        user_id=user_id,
        payload={
            "days": days,
            "runs_out_at_ms": runs_out_at_ms,
            "available": runway.available,
            "burn_per_day": runway.pace.per_day if runway.pace is not None else 0,
        },
        created_at_ms=now_ms,
    )


def _renewals_of(row: SubscriptionRow, terms: Terms, now_ms: int) -> list[Lot]:
    found: list[Lot] = []
    for _ in range(PERIODS_MAX):
        at_ms = max(now_ms, row.next_period_at_ms)
        if row.state != "active" or at_ms > now_ms + HORIZON_MS:
            break
        step = advanced(row, terms, at_ms)
        found += [
            Lot(one.amount, one.priority, one.effective_at_ms, one.expires_at_ms, at_ms, one.grant_id, one.at_end)
            for one in step.grants
        ]
        row = step.row
    return found


def _lot(row: GrantRow) -> Lot:
    amount = row.amount if row.state == "scheduled" else row.remaining
    times = (row.effective_at_ms, row.expires_at_ms, row.created_at_ms)
    return Lot(amount, row.priority, *times, row.grant_id, read_at_end(row.at_end))


def _net(one: UsageSum) -> int:
    return one.charged - one.refunded
