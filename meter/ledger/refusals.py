"""What was refused, as events of the store: who, what, how much, why, so that support can say it a day later.

Only a refusal costs anything: it is handed over here and written by a task of its own, some hundred at a time. A flood
of them is cut, and counted, before it is a flood of rows; the calls themselves are refused all the same.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import deque
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

CHANGES = frozenset(name for name, one in DECLARED.items() if one.books and not one.upkeep)
"""The operations whose refusals are told: those by which a caller would have changed something."""


class Refusals:
    """Open with `start`, end with `close`. `now_ms` is the clock of the partitions."""

    def __init__(self, store: Store, scale: AmountScale, now_ms: Callable[[], Awaitable[int]]) -> None:
        self._store = store
        self._scale = scale
        self._now_ms = now_ms
        self._waiting: deque[RefusedOperation] = deque()
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
        while self._waiting:
            await self._write()

    def told(self, refused: Sequence[RefusedOperation]) -> None:
        """Takes what a batch refused: neither waits nor raises. `Counts.on_refusals`."""
        now = time.monotonic()
        self._tokens = min(float(BURST), self._tokens + (now - self._since) * PER_SECOND)
        self._since = now
        for one in refused:
            if one[0][NAME] not in CHANGES:
                continue
            if self._tokens < 1 or len(self._waiting) >= WAITING_MAX:
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
        at_ms = time.time_ns() // 1_000_000
        with suppress(MeterError):
            at_ms = await self._now_ms()
        try:
            await self._store.put_events([refusal_event(self._scale, at_ms, *one) for one in some])
        except MeterError:
            self.drops[()] += len(some)


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
    if one.rule == "budget":
        ends_ms = NEVER_MS if one.resets_at_ms == NOTHING else int(one.resets_at_ms)
        told["resets_at"] = orjson.loads(time_text(ends_ms))
    if one.rule == "rate_limit":
        told |= {"per_seconds": int(one.per_ms) / 1000, "retry_after_ms": int(one.retry_after_ms)}
    return told


async def forget_refusals(store: Store, before_ms: int, pages: int = 20) -> None:
    """Removes refusals of before a time, some thousand at the most."""
    for _ in range(pages):
        rows = await store.events(kind=REFUSAL, before=(before_ms, ""), limit=PER_WRITE)
        await store.remove(rows)
        if len(rows) < PER_WRITE:
            return
