"""Carries requests out: the provider is asked once per payment, after the claim; what is paid for becomes a grant.

Everything that has to outlive this process is in the row, which moves by compare-and-set (meter/top_ups/planner.py).
Any number of workers may be at it, and each may die between any two steps.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Mapping
from hashlib import blake2b
from typing import TypeVar

from meter.amount import AmountScale
from meter.engine import operations
from meter.engine.answers import OK, PENDING, word_of
from meter.engine.engine import Engine
from meter.engine.operations import BALANCE
from meter.engine.top_ups import TOP_UP, Change, read_word, top_up
from meter.errors import Unavailable
from meter.ledger.pending_grants import Intake, pending_row
from meter.log import logger
from meter.store.base import Store
from meter.store.catalog import Change as StoreChange
from meter.store.rows import AlertRow, EventRow
from meter.store.top_up_rows import TopUpRow
from meter.top_ups import planner
from meter.top_ups.provider import EventRefused, NoAnswer, Outcome, Payment, PaymentEvent, PaymentProvider

PAGE = 100
AT_ONCE_MAX = 16
PROVIDER_SECONDS = 20.0
TRIES_MAX = 5
BOUGHT_ROWS_MAX = 500
"""Requests of one user that are looked through for what was bought in a period."""
SOURCE = "top_up"

T = TypeVar("T")

_log = logger("meter.top_ups")


class TopUps:
    """The requests of one deployment. Without a `provider` those that would ask it wait."""

    def __init__(
        self, engine: Engine, store: Store, intake: Intake, scale: AmountScale, provider: PaymentProvider | None
    ) -> None:
        self._engine = engine
        self._store = store
        self._intake = intake
        self._provider = provider
        self._scale = scale
        self.ended: Counter[str] = Counter()
        """Requests that this process has ended, by outcome."""

    async def page(self) -> tuple[int, bool]:
        """Carries out what is due, each request one step; how many, and whether more may be. Raises `Unavailable`."""
        now_ms = await self._engine.now_ms()
        rows = await self._store.due(TopUpRow, "open", "next_attempt_at_ms", now_ms, PAGE)
        bound = asyncio.Semaphore(AT_ONCE_MAX)

        async def one(row: TopUpRow) -> bool:
            async with bound:
                return await self._step(row, now_ms)

        done = await asyncio.gather(*map(one, rows), return_exceptions=True)
        for row, fault in zip(rows, done, strict=True):
            if isinstance(fault, BaseException) and not isinstance(fault, Exception):
                raise fault
            if isinstance(fault, Exception):
                _log.warning("a top-up waits", top_up_id=row.top_up_id, step=row.step, why=f"{fault}")
        moved = sum(result is True for result in done)
        return moved, moved > 0

    async def heard(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Takes an event of the provider; whether it was of one of ours. Raises `EventRefused`, `NoAnswer` and
        `Unavailable`.
        """
        if self._provider is None:
            raise EventRefused("no provider of payments is set up")
        event = await self._provider.event(headers, body)
        if event is None:
            return False
        return await self._take(event)

    async def is_any_due(self, ahead_ms: int) -> bool:
        """Whether a page would find anything in so many milliseconds. Raises `Unavailable`."""
        until_ms = await self._engine.now_ms() + ahead_ms
        return bool(await self._store.due(TopUpRow, "open", "next_attempt_at_ms", until_ms, 1))

    async def _step(self, row: TopUpRow, now_ms: int) -> bool:
        """Whether anything moved. Raises `Unavailable`."""
        if row.step == "settling":
            return await self._settle(row, now_ms)
        if self._provider is None:
            return False
        if row.step == "due":
            return await self._ask(row, self._provider, now_ms)
        try:
            found = await _in_time(self._provider.look_up(self._payment(row)))
        except NoAnswer as error:
            return await self._swap(planner.unanswered(row, str(error), now_ms), now_ms)
        if found is None:
            return await self._swap(planner.unheard_of(row, now_ms), now_ms)
        return await self._outcome(row, found, now_ms)

    async def _ask(self, row: TopUpRow, provider: PaymentProvider, now_ms: int) -> bool:
        if why := await self._not_needed(row):
            return await self._swap(planner.cancelled(row, why, now_ms), now_ms)
        if wait := await self._bound(row, now_ms):
            return await self._swap(wait, now_ms, "top_up_limited")
        claim = planner.claimed(row, now_ms)
        if not await self._store.swap(claim):
            return False  # another process has it, or an event came
        try:
            outcome = await _in_time(provider.pay(self._payment(claim)))
        except NoAnswer as error:
            return await self._swap(planner.unanswered(claim, str(error), now_ms), now_ms)
        return await self._outcome(claim, outcome, now_ms)

    async def _not_needed(self, row: TopUpRow) -> str:
        """Why the account wants none any more; "" where it does."""
        many = [operations.balance(row.user_id), top_up(row.user_id)]
        balance, said = await self._engine.run_many(self._engine.partition_of(row.user_id), many)
        word = read_word(TOP_UP.read(said)["top_up"])
        if word is None or word.top_up_id != row.top_up_id:
            return "it was turned off"
        balances = BALANCE.read(balance).balances
        return "there are enough credits again" if balances and balances.available > word.terms.below else ""

    async def _bound(self, row: TopUpRow, now_ms: int) -> TopUpRow | None:
        """The row put off, where it would be more than may be bought in its period."""
        if row.most is None:
            return None
        starts_ms, ends_ms = planner.period_ms(row.period, now_ms)
        newest = await self._store.find(
            TopUpRow, {"user_id": row.user_id}, order_by="created_at_ms", descending=True, limit=BOUGHT_ROWS_MAX
        )
        others = [one for one in newest if one.top_up_id != row.top_up_id]
        if planner.bought_since(others, starts_ms) + row.amount <= row.most:
            return None
        return planner.put_off(row, ends_ms, f"no more may be bought within this {row.period}")

    async def _outcome(self, row: TopUpRow, outcome: Outcome, now_ms: int) -> bool:
        """Keeps how a payment stands, whatever events have moved the row meanwhile."""
        if await self._swap(planner.answered(row, outcome, now_ms), now_ms):
            return True
        event = PaymentEvent(planner.key_of(row), outcome.state, outcome.payment_id, outcome.reason)
        return await self._take(event)

    async def _take(self, event: PaymentEvent) -> bool:
        for _ in range(TRIES_MAX):
            row = await self._store.get(TopUpRow, planner.id_in(event.key))
            if row is None:
                _log.warning("an event is of no top-up that is known", key=event.key, state=event.state)
                return False
            now_ms = await self._engine.now_ms()
            if planner.is_paid_twice(row, event):
                await self._alarm(row, f"two payments were made for it: {row.payment_id} and {event.payment_id}")
            after = planner.told(row, event, now_ms)
            if after is None or await self._swap(after, now_ms):
                return True
        raise Unavailable("busy", f"the top-up {event.key} changes all the time")

    async def _settle(self, row: TopUpRow, now_ms: int) -> bool:
        """Gives the account what came of it, however often. Raises `Unavailable`."""
        if row.outcome == "paid":
            return await self._grant(row, now_ms)
        change: Change = "failed" if row.outcome == "declined" else "again"
        await self._engine.run(row.user_id, top_up(row.user_id, change, row.top_up_id))
        kind = "top_up_failed" if row.outcome == "declined" else None
        return await self._end(row, now_ms, kind)

    async def _grant(self, row: TopUpRow, now_ms: int) -> bool:
        one = operations.grant(row.user_id, row.top_up_id, row.amount, source=SOURCE)
        grant = pending_row(one, len(self._engine.partitions), "", now_ms)
        grant = grant.model_copy(update={"metadata": {"payment_id": row.payment_id}})
        word = word_of(await self._intake.add(grant))
        if word == PENDING.word:
            return False
        if word != OK:
            await self._alarm(row, f"it was paid, but its grant of {row.amount} units is refused: {word}")
            return await self._swap(planner.unanswered(row, f"the grant is refused: {word}", now_ms), now_ms)
        if row.reversed_at_ms is None:
            return await self._end(row, now_ms, "top_up_paid")
        many = [top_up(row.user_id, "off"), operations.void(row.user_id, row.top_up_id)]
        await self._engine.run_many(self._engine.partition_of(row.user_id), many)
        return await self._end(row, now_ms, "top_up_reversed")

    async def _end(self, row: TopUpRow, now_ms: int, kind: str | None) -> bool:
        done = await self._swap(planner.ended(row, now_ms), now_ms, kind)
        if done:
            self.ended["reversed" if row.reversed_at_ms is not None else row.outcome or ""] += 1
        return done

    async def _swap(self, row: TopUpRow, now_ms: int, kind: str | None = None) -> bool:
        """Writes a row, with the alert that tells of it; whether no other process was first."""
        if row.looks == planner.STUCK_LOOKS:
            kind = "top_up_stuck"
        alerts = [] if kind is None else [self._alert(row, kind, now_ms)]
        return await self._store.commit(StoreChange(swaps=[row], missing=alerts))

    def _alert(self, row: TopUpRow, kind: str, now_ms: int) -> AlertRow:
        again = f".{row.next_attempt_at_ms}" if kind == "top_up_limited" else ""
        return AlertRow(
            alert_id=f"{kind}.{row.top_up_id}{again}"[:128],
            kind=kind,
            user_id=row.user_id,
            payload={"top_up_id": row.top_up_id, "amount": row.amount, "reason": row.error},
            created_at_ms=now_ms,
        )

    async def _alarm(self, row: TopUpRow, what: str) -> None:
        """What somebody has to look at: a line of the log, and an event of the ledger."""
        digest = blake2b(f"{row.top_up_id} {what}".encode(), digest_size=12).hexdigest()
        _log.error("a top-up needs somebody", top_up_id=row.top_up_id, user_id=row.user_id, why=what)
        event = EventRow(
            event_id=f"top-up-{digest}",
            kind="error",
            user_id=row.user_id,
            message=f"the top-up {row.top_up_id}: {what}"[:500],
            created_at_ms=time.time_ns() // 1_000_000,
        )
        await self._store.put_events([event])

    def _payment(self, row: TopUpRow) -> Payment:
        credits_ = self._scale.credits(row.amount)
        return Payment(
            planner.key_of(row), row.top_up_id, row.user_id, credits_, row.reference, attempt=row.declines + 1
        )


async def _in_time(call: Awaitable[T]) -> T:
    """What a provider answers. Raises `NoAnswer` for whatever goes wrong: it is somebody else's code."""
    try:
        async with asyncio.timeout(PROVIDER_SECONDS):
            return await call
    except NoAnswer:
        raise
    except TimeoutError as error:
        raise NoAnswer(f"no answer within {PROVIDER_SECONDS:g} s") from error
    except Exception as error:
        raise NoAnswer(f"{type(error).__name__}: {error}") from error
