"""Credits in: durable first (DESIGN 4.6).

The grant is a pending row of the store before Redis hears of it; Redis applies it by an operation key of its own, so
that any number of tries applies it once; the flush marks the row applied. A sweep takes up what was left in between.
"""

from __future__ import annotations

import asyncio
import time
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b

from meter.engine import operations
from meter.engine.answers import AVAILABLE, EXISTS, FINGERPRINT, OK, REPLAYED, SUBJECT, word_of
from meter.engine.at_end import AT_END_ARGUMENTS, kept_at_end, read_at_end
from meter.engine.batcher import Mode
from meter.engine.behind import fields_of
from meter.engine.engine import Engine
from meter.engine.operations import GRANT, Asked, Operation
from meter.errors import Unavailable
from meter.keys import partition_of
from meter.ledger.entry_rows import error_alert
from meter.ledger.log_file import LedgerFile
from meter.log import logger
from meter.store.base import Store
from meter.store.rows import EventRow, GrantRow, OperationRow

GRANTS_PER_CALL = 12
"""Each takes Redis some 70 µs, during which nobody else is served."""
PAUSE_SECONDS_MAX = 0.002
"""Between two calls, as long as the one before took: half of the time is whoever else's."""

OLD_AFTER_MS = 30_000
"""A grant this long pending is not just on its way."""
OLD_PER_PAGE = 500
OLD_PAGES_MAX = 1_000

_FORGOTTEN = EXISTS.word
_HAS_IT = (OK, _FORGOTTEN)
_LONG_AGO = "1"

_log = logger("meter")


class Intake:
    """Takes grants in. `ledger` is told of what is refused for good."""

    def __init__(self, engine: Engine, store: Store, ledger: LedgerFile | None = None) -> None:
        self._engine = engine
        self._store = store
        self._ledger = ledger
        self.refused = 0
        """Promised grants that are refused for good, and of which nobody had told yet."""

    async def add(self, row: GrantRow, actor: str = "") -> str:
        """Adds a grant, as `actor` asks for, and answers the script's line.

        The same `operation_id` (or grant_id) and fingerprint again gets the first answer, from Redis until the store
        has it and then from the store for ever; another fingerprint is refused. "0 pending …": the grant is durable but
        Redis went away meanwhile; the sweep applies it, and so does the same call again, though it has ended by then.
        Raises `Unavailable` only before anything is written.
        """
        now_ms = await self._engine.now_ms(self._engine.partition_of(row.user_id))
        row = row.model_copy(update={"created_at_ms": now_ms})  # by Redis: this machine's clock may be ahead, or behind
        first, extra = await self._store.add_pending_grant(row), told_of(row)
        if first is not None:
            if first.fingerprint != row.fingerprint:
                return "0 key_reused" if _is_of_the_same_key(row, first) else "0 exists 0 0 0"
            extra = told_of(row.model_copy(update={"reference": first.reference}))  # a retry has another request id
            row = first
        told = (
            None
            if row.pending
            else await self._store.get(OperationRow, self._engine.partition_of(row.user_id), _key_of(row))
        )
        if told is not None and told.answer is not None:
            return f"{REPLAYED} {told.answer}"
        # Late from the first try on: refused for its end, it would be forgotten under a twin that gives it.
        one = grant_operation(row, extra, actor, late=row.pending and is_promised(row))
        if not row.pending:
            one = GRANT.asking(one, expires_at_ms=_LONG_AGO)  # answers again, and can never apply again
        try:
            line = await self._engine.run(row.user_id, one)
            word = word_of(line)
            if word == _FORGOTTEN or (word != OK and not row.pending):
                return await self._answer_again(row)
        except Unavailable:
            return f"0 pending {row.user_id} {row.grant_id} {row.amount}"
        if word != OK and first is None:
            await self._store.drop_pending_grant(row.user_id, row.grant_id)
        return line

    async def apply_many(self, rows: Sequence[GrantRow]) -> int:
        """Applies pending grants; answers how many Redis has now.

        What Redis could not be told stays pending and is swept up. One that is refused, or that cannot even be asked
        about, stays with an alarm and holds nobody up. One that had ended before it was asked for is dropped: whoever
        was to tell its caller ended in between, and another try is refused. Raises `Unavailable` when the alarm cannot
        be kept.
        """
        by_partition: dict[int, list[GrantRow]] = {}
        for row in rows:
            if row.pending and is_promised(row):  # one that was applied may be forgotten, and would be applied again
                by_partition.setdefault(self._engine.partition_of(row.user_id), []).append(row)
            elif row.pending:
                await self._store.drop_pending_grant(row.user_id, row.grant_id)
        applied = 0
        for partition, share in by_partition.items():
            for first in range(0, len(share), GRANTS_PER_CALL):
                some, began = share[first : first + GRANTS_PER_CALL], time.monotonic()
                words = await self._words(partition, some)
                if first + GRANTS_PER_CALL < len(share):
                    await asyncio.sleep(min(time.monotonic() - began, PAUSE_SECONDS_MAX))
                if words is None:
                    break  # the partition is away; the others may not be
                for row, word in zip(some, words, strict=True):
                    if word in _HAS_IT:
                        applied += 1
                    else:
                        await self._alarm(row, word)
        return applied

    async def _words(self, partition: int, rows: Sequence[GrantRow]) -> list[str] | None:
        """What Redis says of each; None when it could not be asked. Rows that fail together are asked about alone."""
        try:
            many = [grant_operation(row, told_of(row), late=True) for row in rows]
            mode: Mode = "each" if len(rows) > 1 else "atomic"  # alone: a fault of it is nobody else's
            return [word_of(line) for line in await self._engine.run_many(partition, many, mode)]
        except Unavailable:
            return None
        except Exception as error:  # a row that no code of ours has written
            if len(rows) == 1:
                return [f"{type(error).__name__}: {error}"]
            words = [await self._words(partition, [row]) for row in rows]
            return [word for one in words for word in (one or ["not asked"])]

    async def _alarm(self, row: GrantRow, why: str) -> None:
        """Tells once that a grant which was promised is refused."""
        name = blake2b(f"{row.user_id} {row.grant_id}".encode(), digest_size=12).hexdigest()
        event = EventRow(
            event_id=f"pending-{name}",
            kind="error",
            user_id=row.user_id,
            message=f"the grant {row.grant_id} of {row.amount} units is durable, but refused: {why}"[:500],
            created_at_ms=time.time_ns() // 1_000_000,
        )
        at_ms = await self._engine.now_ms(self._engine.partition_of(row.user_id))
        is_new = await self._store.insert(error_alert(event, row.user_id, at_ms, {"grant_id": row.grant_id}))
        await self._store.put_events([event])
        if is_new:
            self.refused += 1
            _log.error(event.message, user_id=row.user_id)
        if is_new and self._ledger is not None:
            self._ledger.events([event])

    async def _answer_again(self, row: GrantRow) -> str:
        """Redis has the grant but no longer the answer: the first one, with today's balances."""
        line = await self._engine.run(row.user_id, operations.balance(row.user_id))
        balances = " ".join(fields_of(line)[AVAILABLE:])
        return f"1 ok {row.user_id} {row.grant_id} {row.transaction_id or '-'} {row.amount} {balances}"


def grant_operation(row: GrantRow, extra: str, actor: str = "", *, late: bool = False) -> Operation:
    """The operation that applies a grant, under a key that only this grant has; `late`: though it may have ended."""
    return operations.grant(
        row.user_id,
        row.grant_id,
        row.amount,
        priority=row.priority,
        effective_at_ms=row.effective_at_ms,
        expires_at_ms=row.expires_at_ms,
        source=row.source,
        at_end=read_at_end(row.at_end),
        late=late,
        only=row.only or "",
        asked=Asked(_key_of(row), extra, actor=actor),
    )


def grant_id_of(user_id: str, key: str) -> str:
    """Of a grant whose caller chose no id: the same for the same key. A try that is refused forgets the grant
    (`Intake.add`), and when a twin of it was let in meanwhile, the next one finds that by its id.
    """
    return f"g_{urlsafe_b64encode(blake2b(f'{user_id} {key}'.encode(), digest_size=12).digest()).decode()}"


def _is_of_the_same_key(row: GrantRow, first: GrantRow) -> bool:
    """A move to other partitions may have given the key of the first another name."""
    key = row.operation_id
    return key is not None and (first.operation_id == key or first.grant_id == grant_id_of(row.user_id, key))


def is_promised(row: GrantRow) -> bool:
    """Whether it could be given when it was asked for."""
    return row.created_at_ms < row.expires_at_ms


def _key_of(row: GrantRow) -> str:
    """The key under which Redis applies a grant, whatever the caller's is; no caller's has a blank."""
    return f"grant {row.user_id} {row.grant_id}"


def told_of(row: GrantRow) -> str:
    """What the caller told with a grant, as its operation had it."""
    return operations.members(row.description, row.metadata, row.reference)


def pending_row(one: Operation, partitions: int, key: str, created_at_ms: int) -> GrantRow:
    """The pending row of a grant operation as `operations.grant` makes it. `key` is the caller's, or ""."""
    asked = dict(zip(GRANT.arguments, one[SUBJECT:], strict=True))
    return GrantRow(
        user_id=asked["user_id"],
        grant_id=asked["grant_id"],
        partition=partition_of(asked["user_id"], partitions),
        amount=int(asked["amount"]),
        remaining=0,
        priority=int(asked["priority"]),
        effective_at_ms=int(asked["effective_at_ms"]),
        expires_at_ms=int(asked["expires_at_ms"]),
        created_at_ms=created_at_ms,
        source=asked["source"],
        at_end=kept_at_end(*(asked[name] for name in AT_END_ARGUMENTS)).text or None,
        pending=True,
        only=asked["only"] or None,
        operation_id=key or None,
        fingerprint=one[FINGERPRINT],
    )


async def apply_old(intake: Intake, store: Store, before_ms: int) -> int:
    """Applies what has been pending since before that, oldest first; answers how many grants Redis has now."""
    applied, after = 0, None
    for _ in range(OLD_PAGES_MAX):
        rows = await store.pending_grants(before_ms, OLD_PER_PAGE, after)
        applied += await intake.apply_many(rows)
        if len(rows) < OLD_PER_PAGE:
            break
        after = (rows[-1].created_at_ms, rows[-1].user_id, rows[-1].grant_id)  # past those that are refused
    return applied
