"""What this process told its callers that is done, until the store has it.

Redis may come back with less than it acknowledged, and what the store has not flushed by then is nowhere but here. So
the batches of the last moments are kept, the callers' own words and what they were answered, and the rebuild is offered
what they did (meter/engine/offers.py). To keep a batch costs one tuple; only a loss reads what is in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import orjson

from meter.engine.answers import EXTRA, FINGERPRINT, KEY, NAME, REPLAYED, Declared, Line, Operation, Subject, is_ok
from meter.engine.declarations import DECLARED
from meter.engine.outbox import Entry
from meter.engine.presented import PresentedOperation
from meter.engine.restrictions import restricted_in

OPERATIONS_MAX = 50_000
"""Operations of a partition that are kept, some 25 MB: those of two seconds at 20,000 a second. Older ones go first."""


class Batch(NamedTuple):
    """A batch that was answered, and where its partition's history stood behind it; `at_ms` is Redis' own clock."""

    epoch: int
    seq: int
    at_ms: int
    operations: Sequence[Operation]
    lines: Sequence[str]


class Acknowledged:
    """The last batches of one partition, the oldest first."""

    __slots__ = ("_batches", "_kept")

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._kept = 0

    def __len__(self) -> int:
        return self._kept

    def keep(self, batch: Batch) -> None:
        """Takes note of a batch."""
        self._batches.append(batch)
        self._kept += len(batch.operations)
        while self._kept > OPERATIONS_MAX:
            self._drop()

    def forget(self, epoch: int, seq: int) -> None:
        """The store has that history up to there, and nothing of a history before it is asked for any more."""
        while self._batches and self._batches[0][:2] <= (epoch, seq):
            self._drop()

    @property
    def epoch(self) -> int:
        """That of the oldest batch; 0 when there is none."""
        return self._batches[0].epoch if self._batches else 0

    def entries(self) -> list[Entry]:
        """What was done, as it would be booked: without what only Redis knew, so with no draws. The seq of each is that
        of the last transaction of its batch.
        """
        return [entry for batch in self._batches for entry in _entries(batch)]

    def _drop(self) -> None:
        self._kept -= len(self._batches.popleft().operations)


def _entries(batch: Batch) -> Iterator[Entry]:
    for operation, text in zip(batch.operations, batch.lines, strict=True):
        declared, told = DECLARED[operation[NAME]], _TOLD.get(operation[NAME])
        if told is None or not is_ok(text) or text.startswith(REPLAYED):
            continue
        yield _entry(batch, declared, operation, declared.read(text), told)


class _Told(NamedTuple):
    """What an answer says of its transaction: the amount, and members of the detail."""

    amount: int
    detail: dict[str, object]


def _entry(
    batch: Batch, declared: Declared, operation: Operation, line: Line, told: Callable[[Operation, Line], _Told]
) -> Entry:
    amount, detail = told(operation, line)
    available, reserved, debt = line.balances or (0, 0, 0)
    if operation[FINGERPRINT]:
        detail["fingerprint"] = operation[FINGERPRINT]
    if declared.subject is Subject.USER and isinstance(operation, PresentedOperation):
        detail["key_id"] = operation.presented[0].key.key_id
    if line.behind.price:
        detail["price"] = line.behind.price
    if line.behind.limited_by:
        detail["limited_by"] = line.behind.limited_by
    if restricted := restricted_in(line.behind.restricted):
        detail["restricted"] = restricted
    return Entry(
        epoch=batch.epoch,
        seq=batch.seq,
        prev="-",
        transaction_id=line.get("transaction_id") or "",
        operation_id=operation[KEY],
        kind=declared.books[0],
        user_id=line["user_id"],
        amount=amount,
        draws=(),
        available=available + int(line.get("forfeited") or 0),
        reserved=reserved,
        debt=debt,
        created_at_ms=batch.at_ms,
        detail=detail | orjson.loads(f"{{{operation[EXTRA]}}}"),
    )


def _deduct(_: Operation, line: Line) -> _Told:
    uncovered = line.units("uncovered")
    return _Told(line.units("taken"), {"uncovered": uncovered} if uncovered else {})


def _reserve(operation: Operation, line: Line) -> _Told:
    detail: dict[str, object] = {"reservation_id": line["reservation_id"], "expires_at": line.units("expires_at_ms")}
    if DECLARED[operation[NAME]].asks(operation, "at_end") != "release":
        detail["at_end"] = "charge"
    return _Told(line.units("amount"), detail)


def _extend(operation: Operation, line: Line) -> _Told:
    held: dict[str, object] = {"held": line.units("amount"), "expires_at": line.units("expires_at_ms")}
    added = DECLARED["extend"].asks(operation, "add_amount") or "0"
    return _Told(int(added), {"reservation_id": line["reservation_id"], **held})


def _commit(_: Operation, line: Line) -> _Told:
    parts = {name: line.units(name) for name in ("released", "forfeited", "uncovered")}
    late = line["late"] == "1"
    return _Told(line.units("charged"), {"reservation_id": line["reservation_id"], **parts, "late": late})


def _release(_: Operation, line: Line) -> _Told:
    detail: dict[str, object] = {"reservation_id": line["reservation_id"], "forfeited": line.units("forfeited")}
    return _Told(line.units("released"), detail)


def _refund(operation: Operation, line: Line) -> _Told:
    charge = DECLARED["refund"].asks(operation, "transaction_id")
    parts = {name: line.units(name) for name in ("forfeited", "left")}
    return _Told(line.units("amount"), {"refund_of": charge, **parts})


def _void(_: Operation, line: Line) -> _Told:
    return _Told(line.units("voided"), {"grant_id": line["grant_id"], "voided": line.units("voided")})


def _adjust(_: Operation, line: Line) -> _Told:
    """What was taken. From which grants only Redis knew; one that was named is drawn on like any other."""
    return _Told(line.units("amount"), {})


def _grant(_: Operation, line: Line) -> _Told:
    """Its id alone: its terms are in the store before Redis has it (meter/ledger/offered.py)."""
    return _Told(line.units("amount"), {"grant_id": line["grant_id"]})


_TOLD: Mapping[str, Callable[[Operation, Line], _Told]] = {
    "deduct": _deduct,
    "deduct_usage": _deduct,
    "refund": _refund,
    "reserve": _reserve,
    "reserve_usage": _reserve,
    "extend": _extend,
    "commit": _commit,
    "commit_usage": _commit,
    "release": _release,
    "withdraw": _release,
    "void": _void,
    "adjust": _adjust,
    "grant": _grant,
}
"""What can be offered back. Changes of an account are not: what its settings were before, and who changed them since,
only the caller knows."""
