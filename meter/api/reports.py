"""The calls about many users at once: who there is, who spent what, and what was refused or changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from typing import cast

from meter.api.exports import Items, listed
from meter.api.figures import Figures
from meter.api.services import Services
from meter.api.settled import is_settled
from meter.clock import DAY_MS, milliseconds, time_text, utc_time
from meter.contract import reports
from meter.engine import operations
from meter.engine.operations import BALANCE
from meter.engine.restrictions import restricted_in
from meter.http.cursors import ID, NUMBER, Cursors
from meter.http.exchange import Request
from meter.http.reading import read_query
from meter.http.rendered import Rendered, model_json
from meter.store.base import Store
from meter.store.rows import EventRow
from meter.store.sums import CHARGED_KINDS, Sum, Wanted
from meter.store.users import UserFound, UserOrder, UsersWanted, value_of

_BY_USER = Cursors("users", r"(-?[0-9]{1,16})", r"([A-Za-z0-9_.:@/-]{1,128})")
_BY_KEY = Cursors("usage", r"(.{1,1024})")
_BY_TIME = Cursors("events", NUMBER, ID)
_BALANCES_PER_BATCH = 100


class ReportHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._engine = services.engine
        self._redis = services.redis
        self._scale = services.scale
        self._renderer = services.renderer
        self._figures = Figures(services)

    async def users(self, request: Request) -> Rendered:
        """`GET /credits/users`: ids from the store, balances from Redis."""
        query = read_query(reports.UsersQuery, request, self._scale)
        store, is_complete = self._store(), await self._settled()
        now_ms = await self._engine.now_ms()
        wanted = _users_wanted(query, now_ms - now_ms % DAY_MS)
        scope = repr((query.starts_with, query.state, query.plan_id, query.metadata, query.order))
        as_of_ms = now_ms if is_complete else min((mark.updated_at_ms for mark in await store.watermarks()), default=0)
        told = f'{_told(is_complete)},"as_of":{time_text(as_of_ms)}'

        async def page_from(cursor: str, limit: int) -> Items:
            place = _BY_USER.read(cursor, scope)
            found = await store.users(wanted, (int(place[0]), place[1]) if place else None, limit)
            following = None
            if len(found) == limit:
                last = found[-1]
                following = _BY_USER.write(value_of(last, wanted.order), last.account.user_id, scope=scope)
            return Items(await self._sums_of(store, found), following, told)

        return await listed("users", request, query, reports.UserSums, page_from)

    async def usage(self, request: Request) -> Rendered:
        """`GET /credits/usage`"""
        query = read_query(reports.UsageQuery, request, self._scale)
        if query.is_of_figures:
            return await self._figures.page(request, query)
        wanted = Wanted(
            query.by,
            query.metadata_member or "",
            query.user_id,
            None if query.from_ is None else milliseconds(query.from_),
            None if query.to is None else milliseconds(query.to),
        )
        scope, store, is_complete = repr(wanted), self._store(), await self._settled()

        async def page_from(cursor: str, limit: int) -> Items:
            [after] = _BY_KEY.read(cursor, scope) or [""]
            found = await store.sums(wanted, after, limit)
            following = _BY_KEY.write(found[-1].key, scope=scope) if len(found) == limit else None
            return Items([self._usage(one, query.by) for one in found], following, _told(is_complete))

        return await listed("usage", request, query, reports.Usage, page_from)

    async def events(self, request: Request) -> Rendered:
        """`GET /credits/events`"""
        query = read_query(reports.EventsQuery, request, self._scale)
        scope, store = f"{query.kind} {query.user_id}", self._store()
        if self._services.refusals is not None:
            await self._services.refusals.flush()  # what this process has refused is among them
        from_ms = 0 if query.from_ is None else milliseconds(query.from_)
        latest = None if query.to is None else (milliseconds(query.to), "")

        async def page_from(cursor: str, limit: int) -> Items:
            place = _BY_TIME.read(cursor, scope)
            before = (int(place[0]), place[1]) if place else latest
            rows = await store.events(kind=query.kind, user_id=query.user_id, before=before, limit=limit)
            found = [row for row in rows if row.created_at_ms >= from_ms]
            is_full = len(found) == limit
            following = _BY_TIME.write(rows[-1].created_at_ms, rows[-1].event_id, scope=scope) if is_full else None
            return Items([model_json(_event(row)) for row in found], following)

        return await listed("events", request, query, reports.Event, page_from)

    async def _sums_of(self, store: Store, users: Sequence[UserFound]) -> list[str]:
        """What each user has and had, as of now."""
        found: dict[str, str] = {}
        by_partition: dict[int, list[str]] = {}
        for one in users:
            user_id = one.account.user_id
            by_partition.setdefault(self._engine.partition_of(user_id), []).append(user_id)
        for number, share in by_partition.items():
            for first in range(0, len(share), _BALANCES_PER_BATCH):
                some = share[first : first + _BALANCES_PER_BATCH]
                lines = await self._engine.run_many(number, [operations.balance(user_id) for user_id in some])
                found.update(zip(some, lines, strict=True))
        return [self._sums(one, found[one.account.user_id], await _last_spent_ms(store, one)) for one in users]

    def _sums(self, user: UserFound, line: str, last_spent_ms: int | None) -> str:
        answer, credits_of = BALANCE.read(line), self._scale.credits
        balances = answer.balances
        available, reserved, debt = (0, 0, 0) if balances is None else balances
        restricted = restricted_in(answer.behind.restricted)
        return model_json(
            reports.UserSums(
                user_id=answer["user_id"],
                credits=credits_of(available),
                balance=credits_of(available + restricted + reserved),
                reserved=credits_of(reserved),
                available=credits_of(available),
                debt=credits_of(debt),
                restricted=credits_of(restricted),
                granted=credits_of(answer.units("granted")),
                spent=credits_of(answer.units("spent")),
                expired=credits_of(answer.units("expired")),
                voided=credits_of(answer.units("voided")),
                open_reservations=answer.units("reservations"),
                overdraft_limit=credits_of(answer.units("overdraft_limit")),
                suspended=answer["suspended"] not in ("-", "0"),
                plan_ids=list(user.plan_ids),
                spent_today=credits_of(user.spent),
                last_spent_at=None if last_spent_ms is None else utc_time(last_spent_ms),
            )
        )

    def _usage(self, one: Sum, by: str) -> str:
        credits_of = self._scale.credits
        key = str(date(1970, 1, 1) + timedelta(days=int(one.key))) if by == "day" else one.key
        return model_json(
            reports.Usage(
                key=key,
                charges=one.charges,
                charged=credits_of(one.charged),
                refunded=credits_of(one.refunded),
                spent=credits_of(one.charged - one.refunded),
                granted=credits_of(one.granted),
            )
        )

    async def _settled(self) -> bool:
        return await is_settled(self._engine, self._redis, self._store())

    def _store(self) -> Store:
        return self._services.catalog("reports")


def _users_wanted(query: reports.UsersQuery, since_ms: int) -> UsersWanted:
    name, _, value = (query.metadata or "").partition(":")
    order = query.order.removeprefix("-")
    return UsersWanted(
        since_ms,
        query.starts_with,
        query.state,
        query.plan_id,
        (name, value) if query.metadata else None,
        cast("UserOrder", order),
        descending=query.order.startswith("-"),
    )


async def _last_spent_ms(store: Store, user: UserFound) -> int | None:
    """When a user was last charged; of accounts of before that was kept, by the ledger."""
    row = user.account
    if row.last_spent_at_ms is not None or not row.spent:
        return row.last_spent_at_ms
    last = await store.history(row.user_id, kinds=CHARGED_KINDS, limit=1)
    return last[0].created_at_ms if last else None


def _told(is_complete: bool) -> str:
    return f',"is_complete":{"true" if is_complete else "false"}'


def _event(row: EventRow) -> reports.Event:
    return reports.Event(
        event_id=row.event_id,
        kind=row.kind,
        user_id=row.user_id,
        message=row.message,
        detail=row.detail,
        created_at=utc_time(row.created_at_ms),
    )
