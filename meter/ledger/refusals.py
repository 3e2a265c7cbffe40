"""What was refused, as events of the store: who, what, how much, why, so that support can say it a day later.

Only a refusal costs anything: it is handed over here and written by a task of its own, some hundred at a time. A flood
of them is cut before it is a flood of rows: of a user the last `KEPT_OF_A_USER` are kept. All are counted, by user,
hour and reason (meter/ledger/refusal_counts.py); the calls themselves are refused all the same.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import orjson
from pydantic import JsonValue

from meter.amount import AmountScale
from meter.clock import NEVER_MS, time_text
from meter.engine.answers import EXTRA, KEY, NAME, NOTHING
from meter.engine.counts import RefusedOperation
from meter.engine.declarations import DECLARED
from meter.engine.operations import Operation
from meter.engine.presented import PresentedOperation
from meter.engine.rules import Violation, read_violations
from meter.errors import MeterError
from meter.ledger.refusal_counts import RefusalCounts, forget_counts
from meter.store.base import Store
from meter.store.rows import EventRow

REFUSAL = "refusal"
"""The kind of these events."""
WAITING_MAX = 2_000
PER_WRITE = 500
PAUSE_SECONDS = 0.5
BURST = 1_000
PER_SECOND = 10.0
"""How many are kept: so many at once, and so many a second from then on, of one process."""

KEPT_OF_A_USER = 100
TRIMMED_AFTER = 50
"""So many more of a user are written until those before the last ones are removed."""
PER_USER_BURST = 100
"""Of one user between two writes; those beyond are counted, and that is all."""

CHANGES = frozenset(name for name, one in DECLARED.items() if one.books and not one.upkeep)
"""The operations whose refusals are told: those by which a caller would have changed something."""


class Refusals:
    """Open with `start`, end with `close`. `now_ms` is the clock of the partitions."""

    def __init__(self, store: Store, scale: AmountScale, now_ms: Callable[[], Awaitable[int]]) -> None:
        self._store = store
        self._scale = scale
        self._now_ms = now_ms
        self._waiting: deque[RefusedOperation] = deque()
        self._of_users: Counter[str] = Counter()
        self._untrimmed: Counter[str] = Counter()
        self._counts = RefusalCounts(store)
        self._tokens, self._since = float(BURST), time.monotonic()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.drops: dict[tuple[str, ...], int] = {(): 0}
        """Refusals that were not kept; as `Metrics.counted` takes it."""

    def start(self) -> None:
        """Begins to write."""
        self._task = asyncio.create_task(self._run(), name="meter-refusals")

    async def close(self) -> None:
        """Writes what waits, and ends."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self.flush()

    async def flush(self) -> None:
        """Writes what waits."""
        self._of_users.clear()
        while self._waiting:
            await self._write()
        if self._counts.is_waiting:
            with suppress(MeterError):  # what was not written waits on
                await self._counts.write(await self._time_ms())
        await self._trim()

    def told(self, refused: Sequence[RefusedOperation]) -> None:
        """Takes what a batch refused: neither waits nor raises. `Counts.on_refusals`."""
        now = time.monotonic()
        self._tokens = min(float(BURST), self._tokens + (now - self._since) * PER_SECOND)
        self._since = now
        for one in refused:
            if one[0][NAME] not in CHANGES:
                continue
            user_id, reason = told_of(*one)
            self._counts.add(user_id, reason)
            self._of_users[user_id] += 1
            if self._tokens < 1 or len(self._waiting) >= WAITING_MAX or self._of_users[user_id] > PER_USER_BURST:
                self.drops[()] += 1
                continue
            self._tokens -= 1
            self._waiting.append(one)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(PAUSE_SECONDS)
            await self.flush()

    async def _write(self) -> None:
        """Writes some of what waits; what the store does not take is dropped and counted."""
        some = [self._waiting.popleft() for _ in range(min(PER_WRITE, len(self._waiting)))]
        if not some:
            return
        at_ms = await self._time_ms()
        events = [refusal_event(self._scale, at_ms, *one) for one in some]
        try:
            await self._store.put_events(events)
        except MeterError:
            self.drops[()] += len(some)
        self._untrimmed.update(event.user_id for event in events if event.user_id is not None)

    async def _time_ms(self) -> int:
        with suppress(MeterError):
            return await self._now_ms()
        return time.time_ns() // 1_000_000

    async def _trim(self) -> None:
        """Removes what is older than the last ones of a user, where many are new."""
        for user_id, _ in [one for one in self._untrimmed.items() if one[1] >= TRIMMED_AFTER]:
            del self._untrimmed[user_id]
            with suppress(MeterError):
                await trim(self._store, user_id)
        if len(self._untrimmed) > WAITING_MAX:
            self._untrimmed.clear()  # who is refused now and then is seen to by the days that refusals are kept


def told_of(operation: Operation, line: str) -> tuple[str, str]:
    """Whose operation was refused, "" where nobody can say, and the word of the refusal."""
    declared = DECLARED[operation[NAME]]
    refusal = declared.read(line)
    return declared.asks(operation, "user_id") or refusal.get("user_id") or "", refusal.word


async def trim(store: Store, user_id: str) -> None:
    """Leaves of a user's refusals the last ones."""
    kept = await store.events(kind=REFUSAL, user_id=user_id, limit=KEPT_OF_A_USER)
    if len(kept) < KEPT_OF_A_USER:
        return
    before = (kept[-1].created_at_ms, kept[-1].event_id)
    while rows := await store.events(kind=REFUSAL, user_id=user_id, before=before, limit=PER_WRITE):
        await store.remove(rows)


def refusal_event(scale: AmountScale, at_ms: int, operation: Operation, line: str) -> EventRow:
    """The event of an operation that was refused; what it asked for is in `detail`."""
    name, key = operation[NAME], operation[KEY]
    declared = DECLARED[name]
    refusal = declared.read(line)
    balances = refusal.balances
    amount = declared.asks(operation, "amount") or declared.asks(operation, "add_amount")
    told = orjson.loads(f"{{{operation[EXTRA]}}}")
    reference = told.get("reference") or (key if key and " " not in key else None)
    return EventRow(
        event_id=f"refusal-{time.time_ns():016x}{secrets.token_hex(4)}",
        kind=REFUSAL,
        user_id=declared.asks(operation, "user_id") or refusal.get("user_id"),
        message=f"{name} refused: {refusal.word}",
        detail={
            "operation": name,
            "refusal": refusal.word,
            "operation_id": key if key and " " not in key else None,  # with a blank it is of our own making
            "reservation_id": declared.asks(operation, "reservation_id"),
            "amount": scale.text(int(amount)) if amount else None,
            "available": None if balances is None else scale.text(balances.available),
            "reference": reference,
            "actor": told.get("actor"),
            "key_id": key_of(operation),
            "violations": [_violation(one, scale) for one in read_violations(refusal.get("violations") or NOTHING)],
        },
        created_at_ms=at_ms,
        reference=reference if isinstance(reference, str) else None,
    )


def key_of(operation: Operation) -> str | None:
    """The id of the API key that an operation was asked for by, if any."""
    return operation.presented[0].key.key_id if isinstance(operation, PresentedOperation) else None


def _violation(one: Violation, scale: AmountScale) -> JsonValue:
    """A rule that refused, as the answer told it; amounts are texts, as everywhere in an event."""
    told: dict[str, JsonValue] = {"rule": one.rule, "user_id": one.user_id, "id": None if one.id == NOTHING else one.id}
    if one.window != NOTHING:
        told["window"] = one.window
    for name in ("limit", "used", "reserved", "required"):
        value = getattr(one, name)
        if value != NOTHING:
            told[name] = int(value) if one.unit == "r" else scale.text(int(value))
    if one.rule in ("budget", "velocity"):
        ends_ms = NEVER_MS if one.resets_at_ms == NOTHING else int(one.resets_at_ms)
        told["resets_at"] = orjson.loads(time_text(ends_ms))
    if one.rule in ("rate_limit", "velocity"):
        told["per_seconds"] = int(one.per_ms) / 1000
    if one.retry_after_ms != NOTHING:
        told["retry_after_ms"] = int(one.retry_after_ms)
    return told


async def forget_refusals(store: Store, before_ms: int, pages: int = 20) -> None:
    """Removes refusals of before a time and what was counted of them, some thousand at the most."""
    await forget_counts(store, before_ms)
    for _ in range(pages):
        rows = await store.events(kind=REFUSAL, before=(before_ms, ""), limit=PER_WRITE)
        await store.remove(rows)
        if len(rows) < PER_WRITE:
            return
