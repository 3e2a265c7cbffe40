"""Takes the name of a user out of Redis and the store, and leaves the money where it was, under a pseudonym.

A mark in the store comes first, with a pseudonym drawn by lot. Redis then gives the account that name in one step,
which the outbox tells of: what came before is the old name's, what comes after is somebody else's. Once the flush has
that entry, the rows up to its seq are rewritten a page at a time, then what Redis remembers is forgotten, and last the
mark goes. Each step finds what is left to do, so a call that was cut off anywhere is finished by the next one.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal, NamedTuple, TypeVar

from meter.engine import operations, upkeep
from meter.engine.answers import LIVE, NOT_FOUND, Line
from meter.engine.api_keys import REVOKED, put_keys
from meter.engine.engine import Engine
from meter.engine.operations import BALANCE
from meter.engine.parts import following, is_part, path_of
from meter.engine.redis import RedisGateway
from meter.engine.restrictions import restricted_in
from meter.engine.upkeep import ANONYMISE, FORGET
from meter.keys import partition_of
from meter.ledger.caller import CHOSEN
from meter.ledger.entry_rows import ANONYMISED
from meter.ledger.identity import kept_ledger
from meter.ledger.pseudonym import Pseudonym
from meter.store.base import Store
from meter.store.code_rows import RedemptionRow
from meter.store.key_rows import ApiKeyRow
from meter.store.plan_rows import ErrandRow, PastPlanRow, SubscriptionRow
from meter.store.rows import (
    AlertRow,
    AnonymisationRow,
    AnswerRow,
    DeliveryRow,
    EventRow,
    GrantRow,
    OperationRow,
    QuarantineRow,
    RefusalCountRow,
    ReservationRow,
    RunwayRow,
    TransactionRow,
)
from meter.store.top_up_rows import TopUpRow
from meter.store.usage_rows import UsageQuantityRow, UsageRow

PAGE = 200
FIELDS_PER_CALL = 100
FLUSH_SECONDS = 2.0
"""How long a call waits for the worker, at each of the three places where it may; a flush takes one second."""
LOOK_AGAIN_SECONDS = 0.05
WORK_SECONDS = 2.0
"""How long a call rewrites rows; the next one goes on. All together stays below what clients wait for (10 s)."""

State = Literal["anonymised", "pending", "unknown", "subscribed", "busy", "live"]
Lasting = TypeVar("Lasting", GrantRow, ReservationRow)
Counting = TypeVar("Counting", UsageRow, UsageQuantityRow)


class Left(NamedTuple):
    """What an account has that has to end first: units, and how many reservations."""

    reservations: int = 0
    credits: int = 0
    """Available or scheduled."""
    debt: int = 0


class Anonymised(NamedTuple):
    """What became of a call. `subscribed`, `busy` (grants or errands are on their way) and `live` changed nothing."""

    state: State
    left: Left = Left()


class _Entry(NamedTuple):
    """Where the ledger gave the account its other name."""

    seq: int
    at_ms: int


class Anonymiser:
    """Anonymises users of one deployment."""

    def __init__(self, engine: Engine, redis: RedisGateway, store: Store) -> None:
        self._engine = engine
        self._redis = redis
        self._store = store

    async def run(self, user_id: str, extra: str = "") -> Anonymised:
        """Does what is left to do; `extra` are members of the ledger row. Raises `Unavailable`."""
        mark = await self._store.get(AnonymisationRow, user_id)
        entry = None if mark is None else await self._entry(mark)
        if entry is None:
            if not_now := await self._not_now(user_id, is_marked=mark is not None):
                return not_now
            mark = mark or await self._marked(user_id)
            if mark is None:
                return Anonymised("busy")
            await self._end_keys(user_id)
            if not_now := await self._rename(mark, extra):
                return not_now
            entry = await self._flushed(mark)
        if mark is None or entry is None:
            return Anonymised("pending")
        if not await _Rewriting(self._store, Pseudonym(mark), entry, self._number(user_id)).done():
            return Anonymised("pending")
        if not await self._forgotten(mark, entry):
            return Anonymised("pending")
        await self._store.remove([mark])
        return Anonymised("anonymised")

    async def _not_now(self, user_id: str, *, is_marked: bool) -> Anonymised | None:
        """What is to be said before anything is begun: nobody is there, or something has to end first."""
        keys = self._engine.partitions[self._number(user_id)]
        if not is_marked and await self._redis.field(keys.accounts, user_id) is None:
            token = f"k {await self._token(user_id)}"
            ended = [await self._redis.field(recent, token) for recent in keys.recent]
            return Anonymised("unknown" if ended == [None, None] else "anonymised")
        for row in await self._store.find(SubscriptionRow, {"user_id": user_id}, order_by="plan_group", limit=PAGE):
            if row.state != "ended":
                return Anonymised("subscribed")
        answer = BALANCE.read(await self._engine.run(user_id, operations.balance(user_id)))
        return _live(answer) or await self._on_their_way(user_id)

    async def _on_their_way(self, user_id: str) -> Anonymised | None:
        """Credits that came are waited for: what is flushed is done. Errands of a subscription have to end, and so has
        what is being bought.
        """
        mine, deadline = {"user_id": user_id}, time.monotonic() + FLUSH_SECONDS
        if await self._store.find(ErrandRow, mine, order_by="created_at_ms", limit=1):
            return Anonymised("busy")
        if await self._store.find(TopUpRow, {**mine, "state": "open"}, order_by="created_at_ms", limit=1):
            return Anonymised("busy")
        while await self._store.find(GrantRow, {**mine, "pending": True}, order_by="created_at_ms", limit=1):
            if time.monotonic() > deadline:
                return Anonymised("busy")
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        return None

    async def _end_keys(self, user_id: str) -> None:
        """API keys that name the user end, and nothing keeps them."""
        while rows := await self._store.find(ApiKeyRow, {"user_id": user_id}, order_by="created_at_ms", limit=PAGE):
            ended = put_keys([(row.key_id, row.version, REVOKED) for row in rows])
            await self._engine.run_many(self._number(user_id), [ended])
            await self._store.remove(rows)

    async def _marked(self, user_id: str) -> AnonymisationRow | None:
        """The mark of a user, made now unless another process did."""
        mark = AnonymisationRow(
            user_id=user_id,
            pseudonym=self._pseudonym(user_id),
            secret=secrets.token_hex(16),
            created_at_ms=time.time_ns() // 1_000_000,
        )
        await self._store.insert(mark)
        return await self._store.get(AnonymisationRow, user_id)

    def _pseudonym(self, user_id: str) -> str:
        """A name of the same partition, drawn by lot."""
        partitions = len(self._engine.partitions)
        while True:
            name = f"anonymous-{secrets.token_hex(10)}"
            if partition_of(name, partitions) == self._number(user_id):
                return name

    def _number(self, user_id: str) -> int:
        return self._engine.partition_of(user_id)

    async def _rename(self, mark: AnonymisationRow, extra: str) -> Anonymised | None:
        """Redis' step; None where it was done, now or before. A mark that is not used yet stays for the next call."""
        token = await self._token(mark.user_id)
        line = await self._engine.run(mark.user_id, upkeep.anonymise(mark.user_id, mark.pseudonym, token, extra))
        answer = ANONYMISE.read(line)
        if answer.word == LIVE.word:
            return _live(answer)
        keys = self._engine.partitions[self._number(mark.user_id)]
        if await self._redis.field(keys.accounts, mark.pseudonym) is not None:
            return None
        await self._store.remove([mark])  # another call was first, and has ended
        return Anonymised("unknown" if answer.word == NOT_FOUND.word else "anonymised")

    async def _token(self, user_id: str) -> str:
        """What a name that is gone is known by for a while; without the ledger's id nobody can try names."""
        ledger = await kept_ledger(self._store)
        return f"anonymised {blake2b(user_id.encode(), key=ledger.encode(), digest_size=16).hexdigest()}"

    async def _flushed(self, mark: AnonymisationRow) -> _Entry | None:
        """The entry of the other name, once the store has it."""
        deadline = time.monotonic() + FLUSH_SECONDS
        while True:
            entry = await self._entry(mark)
            if entry is not None or time.monotonic() > deadline:
                return entry
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _entry(self, mark: AnonymisationRow) -> _Entry | None:
        found = await self._store.history(mark.pseudonym, kinds=("account",), limit=PAGE)
        for row in found:
            if isinstance(row.detail, dict) and row.detail.get(ANONYMISED):
                return _Entry(row.seq, row.created_at_ms)
        return None

    async def _forgotten(self, mark: AnonymisationRow, entry: _Entry) -> bool:
        """Forgets what Redis remembers of the name: answers to keys and senders, finished reservations, and entries,
        once the store has all of them; False where it does not have them in time.
        """
        number = self._number(mark.user_id)
        for recent in self._engine.partitions[number].recent:
            async for fields in self._redis.fields_naming(recent, mark.user_id):
                for first in range(0, len(fields), FIELDS_PER_CALL):
                    some = fields[first : first + FIELDS_PER_CALL]
                    await self._engine.run_many(number, [upkeep.forget(mark.user_id, mark.pseudonym, 0, some)])
        deadline = time.monotonic() + FLUSH_SECONDS
        while True:
            watermark = await self._store.watermark(number)
            flushed = upkeep.flushed(watermark.seq if watermark else 0, 0, 0)
            forget = upkeep.forget(mark.user_id, mark.pseudonym, entry.seq, ())
            _, line = await self._engine.run_many(number, [flushed, forget])
            if FORGET.read(line).units("trimmed") or time.monotonic() > deadline:
                return bool(FORGET.read(line).units("trimmed"))
            await asyncio.sleep(LOOK_AGAIN_SECONDS)


def _live(answer: Line) -> Anonymised | None:
    """What has to end first; None where nothing is left."""
    available, _, debt = answer.balances or (0, 0, 0)
    restricted = restricted_in(answer.behind.restricted)
    left = Left(answer.units("reservations"), available + restricted + answer.units("scheduled"), debt)
    return Anonymised("live", left) if any(left) else None


class _Rewriting:
    """The rows of one user, up to the entry that gave the account its other name."""

    def __init__(self, store: Store, name: Pseudonym, entry: _Entry, number: int) -> None:
        self._store = store
        self._name = name
        self._user_id = name.mark.user_id
        self._entry = entry
        self._number = number
        self._deadline = time.monotonic() + WORK_SECONDS

    async def done(self) -> bool:
        """Rewrites what is left; False when the time is over before that. Raises `StoreUnavailable`."""
        for step in (
            self._transactions,
            self._reservations,
            self._grants,
            self._account,
            self._plans,
            self._redemptions,
            self._bought,
            self._figures,
            self._texts,
        ):
            if not await step():
                return False
        return True

    def _in_time(self) -> bool:
        return time.monotonic() < self._deadline

    async def _transactions(self) -> bool:
        while page := await self._store.history(self._user_id, before_seq=self._entry.seq, limit=PAGE):
            if not self._in_time():
                return False
            for row in page:
                await self._keys(row)
                await self._paid_by_others(row)
            await self._store.rewrite(page, [self._name.row(row) for row in page])
        return True

    async def _paid_by_others(self, first: TransactionRow) -> None:
        """What pools paid for the user, and the holds that they paid it from."""
        others = following(first.transaction_id, first.detail)
        rows = list((await self._store.transactions(others)).values()) if others else []
        named = [row for row in rows if path_of(row.user_id, row.detail) == self._user_id]
        if named:
            holds = await self._store.reservations([row.reservation_id for row in named if row.reservation_id])
            parts = [hold for name, hold in holds.items() if is_part(name)]
            await self._store.rewrite(parts, [self._name.part(hold) for hold in parts])
            await self._store.rewrite(named, [self._name.paid(row) for row in named])

    async def _keys(self, row: TransactionRow) -> None:
        """The keys that a transaction was made under."""
        names = [row.operation_id, f"{CHOSEN}{row.reservation_id}" if row.kind == "reserve" else None]
        for operation_id in filter(None, names):
            found = await self._store.get(OperationRow, self._number, operation_id)
            if found is not None and found.transaction_id == row.transaction_id:
                await self._store.rewrite([found], [self._name.row(found)])

    async def _reservations(self) -> bool:
        after: tuple[int, str] | None = None
        while page := await self._store.reservations_of(self._user_id, state=None, after=after, limit=PAGE):
            if not self._in_time():
                return False
            await self._rewrite_old(page)
            after = (page[-1].created_at_ms, page[-1].reservation_id)
        return True

    async def _grants(self) -> bool:
        after: tuple[int, str] | None = None
        while page := await self._store.grants_of(self._user_id, after=after, limit=PAGE):
            if not self._in_time():
                return False
            await self._rewrite_old([row for row in page if not row.pending])
            after = (page[-1].created_at_ms, page[-1].grant_id)
        return True

    async def _rewrite_old(self, page: Sequence[Lasting]) -> None:
        """Those of before the entry, each for itself where the page is not what it was any more."""
        old = [row for row in page if row.last_seq <= self._entry.seq]
        if old and not await self._store.rewrite(old, [self._name.row(row) for row in old]):
            for row in old:
                await self._store.rewrite([row], [self._name.row(row)])

    async def _account(self) -> bool:
        """The flush made the account of the pseudonym, and left an empty one."""
        row = (await self._store.accounts([self._user_id])).get(self._user_id)
        if row is not None and row.last_seq <= self._entry.seq:
            await self._store.rewrite([row], [])
        return True

    async def _figures(self) -> bool:
        """The flush of the entry gave them to the pseudonym; what they count by may have the name in it."""
        return await self._figures_of(UsageRow) and await self._figures_of(UsageQuantityRow)

    async def _figures_of(self, model: type[Counting]) -> bool:
        mine = {"path": self._name.mark.pseudonym}
        page: list[Counting] = await self._store.find(model, mine, order_by="bucket_ms", limit=PAGE)
        while page:
            if not self._in_time():
                return False
            for row in page:
                if self._name.is_named_in(row.feature):
                    await self._store.rewrite([row], [self._name.row(row)])
            last: Counting = page[-1]
            after: tuple[int | str, ...] = (
                last.bucket_ms,
                *(getattr(last, name) for name in last.KEY if name != "bucket_ms"),
            )
            page = await self._store.find(model, mine, order_by="bucket_ms", after=after, limit=PAGE)
        return True

    async def _plans(self) -> bool:
        """The plans that the user had, so that sums of that time stay as they are."""
        mine, until = {"user_id": self._user_id}, self._entry.at_ms
        while page := await self._store.find(PastPlanRow, mine, order_by="from_ms", until=until, limit=PAGE):
            if not self._in_time():
                return False
            await self._store.rewrite(page, [self._name.row(row) for row in page])
        return True

    async def _redemptions(self) -> bool:
        """Of promo codes: they were given all the same."""
        mine, until = {"user_id": self._user_id}, self._entry.at_ms
        while page := await self._store.find(RedemptionRow, mine, order_by="created_at_ms", until=until, limit=PAGE):
            if not self._in_time():
                return False
            await self._store.rewrite(page, [self._name.row(row) for row in page])
        return True

    async def _bought(self) -> bool:
        """By auto top-up: it was paid for all the same."""
        mine, until = {"user_id": self._user_id}, self._entry.at_ms
        while page := await self._store.find(TopUpRow, mine, order_by="created_at_ms", until=until, limit=PAGE):
            if not self._in_time():
                return False
            await self._store.rewrite(page, [self._name.row(row) for row in page])
        return True

    async def _texts(self) -> bool:
        """What is no money: it goes, apart from what stands for an entry."""
        until = max(self._entry.at_ms, time.time_ns() // 1_000_000)
        for model in (AlertRow, DeliveryRow, ErrandRow, EventRow, RunwayRow, SubscriptionRow):
            mine = {"user_id": self._user_id}
            while page := await self._store.find(model, mine, order_by="created_at_ms", until=until, limit=PAGE):
                if not self._in_time():
                    return False
                await self._store.remove(page)
        mine = {"user_id": self._user_id}
        while counts := await self._store.find(RefusalCountRow, mine, order_by="hour_ms", limit=PAGE):
            await self._store.remove(counts)
        await self._answers()
        await self._quarantine()
        return True

    async def _answers(self) -> None:
        """Kept answers of calls about the user, whoever's key they have."""
        after: tuple[int, str] | None = None
        while page := await self._store.find(AnswerRow, {}, order_by="created_at_ms", after=after, limit=PAGE):
            quoted = f'"{self._user_id}"'
            named = [row for row in page if quoted in row.body or self._name.is_named_in(row.operation_id)]
            await self._store.remove(named)
            after = (page[-1].created_at_ms, page[-1].operation_id)

    async def _quarantine(self) -> None:
        after: tuple[int, int, int] | None = None
        mine = {"partition": self._number}
        while page := await self._store.find(QuarantineRow, mine, order_by="seq", after=after, limit=PAGE):
            for row in page:
                if f'"{self._user_id}"' in row.text:
                    await self._store.rewrite([row], [self._name.row(row)])
            after = (page[-1].seq, page[-1].partition, page[-1].seq)
