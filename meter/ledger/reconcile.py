"""The reconciliation: does Redis say what the store says, account by account, at one and the same seq?

It reports and never mends. An account that changes between the two readings is read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

from meter.engine import operations
from meter.engine.engine import Engine
from meter.engine.operations import BALANCE
from meter.engine.redis import RedisGateway
from meter.engine.restrictions import restricted_in
from meter.engine.top_ups import TOP_UP, read_word, top_up
from meter.errors import MeterError
from meter.ledger import plan_rules
from meter.ledger.plan_prices import OF_USER, subscriptions_with_prices, word_of, words_in
from meter.ledger.recount import Counted, recount
from meter.store.base import Store
from meter.store.rows import AccountRow

ACCOUNTS_PER_PAGE = 200
ROUNDS_MAX = 20
CATCH_UP_PAUSE_SECONDS = 0.05
CATCH_UP_SECONDS = 30.0


class ReconcileStalled(MeterError):
    """The store does not catch up with Redis: is a worker running?"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one side says of an account, in units."""

    available: int = 0
    restricted: int = 0
    reserved: int = 0
    debt: int = 0
    granted: int = 0
    spent: int = 0
    expired: int = 0
    voided: int = 0
    rules: str = ""
    """The terms of its rules (lua/state/level.lua)."""
    charged: int = 0
    """Since its level counts; `held` and `holds` likewise, `used` by the budgets in order."""
    held: int = 0
    holds: int = 0
    used: tuple[int, ...] = ()
    prices: tuple[str, ...] = ()
    """What its plans say of prices (lua/state/rates.lua); likewise of rules (lua/state/plan_rules.lua)."""
    plan_rules: tuple[str, ...] = ()
    top_up: str = ""
    """What is bought for it when few are left (lua/state/top_up.lua)."""


@dataclass(frozen=True, slots=True)
class Drift:
    """An account on which the two sides differ; of its level, the store and what its transactions add up to may be the
    sides.
    """

    user_id: str
    redis: Figures
    store: Figures

    @property
    def members(self) -> list[str]:
        """The names of the figures that differ."""
        ours, theirs = asdict(self.redis), asdict(self.store)
        return [name for name in ours if ours[name] != theirs[name]]


@dataclass(frozen=True, slots=True)
class ReconcileReport:
    """How many accounts were compared, and the drifts. `unsettled` ones changed too fast to be compared."""

    accounts: int
    drifts: tuple[Drift, ...]
    unsettled: tuple[str, ...] = ()


class Reconcile:
    """Compares the partitions of one deployment."""

    def __init__(self, engine: Engine, redis: RedisGateway, store: Store) -> None:
        self._engine = engine
        self._redis = redis
        self._store = store

    async def partition(self, number: int) -> ReconcileReport:
        """Compares every account of a partition. Raises `ReconcileStalled` when nothing is being flushed."""
        drifts: list[Drift] = []
        unsettled: list[str] = []
        users = sorted(await self._users(number))
        for first in range(0, len(users), ACCOUNTS_PER_PAGE):
            found, moving = await self._compare(number, users[first : first + ACCOUNTS_PER_PAGE])
            drifts += found
            unsettled += moving
        for user in sorted(await self._ruled(number, users)):
            level = await self._compare_level(number, user)
            if level is None:
                unsettled.append(user)
            else:
                drifts += level
        drifts += await self._compare_prices(number)
        drifts += await self._compare_plan_rules(number)
        return ReconcileReport(len(users), tuple(drifts), tuple(unsettled))

    async def _users(self, number: int) -> set[str]:
        users = set(await self._redis.account_users(self._engine.partitions[number].accounts))
        after = ""
        while rows := await self._store.scan_accounts(number, after, ACCOUNTS_PER_PAGE):
            users.update(row.user_id for row in rows)
            after = rows[-1].user_id
        return users

    async def _compare(self, number: int, users: Sequence[str]) -> tuple[list[Drift], list[str]]:
        """The drifts among some accounts, and those that never stood still."""
        pending, drifts = list(users), []
        for _ in range(ROUNDS_MAX):
            lines = await self._lines(number, pending)
            read_at = await self._seq(number)
            await self._catch_up(number, read_at)
            rows = await self._store.accounts(pending)
            again = await self._lines(number, pending)
            moving: list[str] = []
            for user, line, later in zip(pending, lines, again, strict=True):
                ours, theirs = _of_lines(*line), _of_row(rows.get(user))
                if ours == theirs:
                    continue
                if line != later or (user in rows and rows[user].last_seq > read_at):
                    moving.append(user)
                else:
                    drifts.append(Drift(user, ours, theirs))
            pending = moving
            if not pending:
                break
        return drifts, pending

    async def _lines(self, number: int, users: Sequence[str]) -> list[tuple[str, str]]:
        """What Redis says of the balances of each, and of what is bought for it."""
        both = [one for user in users for one in (operations.balance(user), top_up(user))]
        lines = await self._engine.run_many(number, both)
        return list(zip(lines[::2], lines[1::2], strict=True))

    async def _ruled(self, number: int, users: Sequence[str]) -> set[str]:
        """The accounts that have rules on one side or the other."""
        found = set(await self._redis.account_users(self._engine.partitions[number].rules))
        for first in range(0, len(users), ACCOUNTS_PER_PAGE):
            rows = await self._store.accounts(users[first : first + ACCOUNTS_PER_PAGE])
            found |= {row.user_id for row in rows.values() if row.rules is not None}
        return found

    async def _compare_level(self, number: int, user: str) -> list[Drift] | None:
        """The drifts of a level: of Redis from the store, and of the store from its own transactions. None where it
        never stood still.
        """
        keys = self._engine.partitions[number]
        for _ in range(ROUNDS_MAX):
            ours = await self._redis.field(keys.rules, user), await self._redis.field(keys.counters, user)
            await self._catch_up(number, await self._seq(number))
            row = (await self._store.accounts([user])).get(user, AccountRow(user_id=user, partition=number))
            proved = _counted(row, await recount(self._store, row))
            later = await self._redis.field(keys.rules, user), await self._redis.field(keys.counters, user)
            if ours != later or row != (await self._store.accounts([user])).get(user, row):
                continue
            terms, counters = ("" if text is None else text.decode() for text in ours)
            of_redis = row.model_copy(update={"rules": terms or None, "counters": counters or None})
            sides = _counted(of_redis, Counted.of(of_redis)), _counted(row, Counted.of(row)), proved
            return [Drift(user, one, other) for one, other in pairwise(sides) if one != other]
        return None

    async def _compare_prices(self, number: int) -> list[Drift]:
        """The drifts of what plans say of prices. What differs once may be on its way."""
        differing = await self._prices_differing(number)
        if differing:
            await asyncio.sleep(CATCH_UP_PAUSE_SECONDS)
            again = await self._prices_differing(number)
            differing = {user: sides for user, sides in differing.items() if again.get(user) == sides}
        return [
            Drift(user, Figures(prices=ours), Figures(prices=theirs))
            for user, (ours, theirs) in sorted(differing.items())
        ]

    async def _prices_differing(self, number: int) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """What Redis and the store have, by user, where these differ."""
        ours: dict[str, tuple[str, ...]] = {}
        for name, text in (await self._redis.fields_of(self._engine.partitions[number].rates)).items():
            if name.startswith(OF_USER) and (words := words_in(text.decode())):
                ours[name.removeprefix(OF_USER)] = words
        theirs: dict[str, tuple[str, ...]] = {}
        async for row in subscriptions_with_prices(self._store):
            if self._engine.partition_of(row.user_id) == number:
                theirs[row.user_id] = tuple(sorted((*theirs.get(row.user_id, ()), word_of(row))))
        users = ours.keys() | theirs.keys()
        pairs = {user: (ours.get(user, ()), theirs.get(user, ())) for user in users}
        return {user: pair for user, pair in pairs.items() if pair[0] != pair[1]}

    async def _compare_plan_rules(self, number: int) -> list[Drift]:
        """The drifts of what plans say of rules. What differs once may be on its way."""
        differing = await self._rules_differing(number)
        if differing:
            await asyncio.sleep(CATCH_UP_PAUSE_SECONDS)
            again = await self._rules_differing(number)
            differing = {user: sides for user, sides in differing.items() if again.get(user) == sides}
        return [
            Drift(user, Figures(plan_rules=ours), Figures(plan_rules=theirs))
            for user, (ours, theirs) in sorted(differing.items())
        ]

    async def _rules_differing(self, number: int) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        """What Redis and the store have, by user, where these differ."""
        ours: dict[str, tuple[str, ...]] = {}
        for name, text in (await self._redis.fields_of(self._engine.partitions[number].calendar)).items():
            if name.startswith(plan_rules.OF_USER) and (words := plan_rules.words_in(text.decode())):
                ours[name.removeprefix(plan_rules.OF_USER)] = words
        theirs: dict[str, tuple[str, ...]] = {}
        async for row in plan_rules.subscriptions_with_rules(self._store):
            if self._engine.partition_of(row.user_id) == number:
                word = f"{row.plan_group} {plan_rules.rules_of(row)}"
                theirs[row.user_id] = tuple(sorted((*theirs.get(row.user_id, ()), word)))
        pairs = {user: (ours.get(user, ()), theirs.get(user, ())) for user in ours.keys() | theirs.keys()}
        return {user: pair for user, pair in pairs.items() if pair[0] != pair[1]}

    async def _seq(self, number: int) -> int:
        state = await self._redis.partition_state(self._engine.partitions[number].meta)
        return 0 if state is None else state.seq

    async def _catch_up(self, number: int, seq: int) -> None:
        deadline = asyncio.get_running_loop().time() + CATCH_UP_SECONDS
        while True:
            watermark = await self._store.watermark(number)
            if seq == 0 or (watermark is not None and watermark.seq >= seq):
                return
            if asyncio.get_running_loop().time() > deadline:
                raise ReconcileStalled(
                    f"partition {number}: the store is not flushed up to seq {seq}; is a worker running?"
                )
            await asyncio.sleep(CATCH_UP_PAUSE_SECONDS)


def _counted(row: AccountRow, counted: Counted) -> Figures:
    figures = Figures(rules=row.rules or "", charged=counted.charged, held=counted.held, holds=counted.holds)
    return replace(figures, used=tuple(counted.used.values()))


def _of_lines(line: str, of_top_up: str) -> Figures:
    answer = BALANCE.read(line)
    available, reserved, debt = answer.balances or (0, 0, 0)
    granted, spent, expired, voided = map(answer.units, ("granted", "spent", "expired", "voided"))
    restricted = restricted_in(answer.behind.restricted)
    word = TOP_UP.read(of_top_up)["top_up"]
    figures = Figures(available, restricted, reserved, debt, granted, spent, expired, voided)
    return figures if read_word(word) is None else replace(figures, top_up=word)


def _of_row(row: AccountRow | None) -> Figures:
    if row is None:
        return Figures()
    free = (row.available, row.restricted or 0)
    figures = Figures(*free, row.reserved, row.debt, row.granted, row.spent, row.expired, row.voided)
    return replace(figures, top_up=row.top_up or "")
