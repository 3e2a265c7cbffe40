"""Counting on the hot path: plain integers, once per batch and never per metric object.

Knows what an answer line begins with; knows nothing of Prometheus (`meter.metrics` puts the counts into its words).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

from meter.engine.answers import (
    BUDGET_REACHED,
    FIRST,
    INSUFFICIENT,
    NAME,
    OK,
    RATE_LIMITED,
    REPLAYED,
    SUSPENDED,
    Operation,
    word_of,
)

BATCH_BOUNDS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
SECONDS_BOUNDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)

_DONE = f"0 {OK} "
_NOT_REFUSED = frozenset({"replayed", "undone"})
_RULES_AT = {
    one.word: FIRST + one.fields.index("violations") for one in (INSUFFICIENT, BUDGET_REACHED, SUSPENDED, RATE_LIMITED)
}
"""Where a refusal names the rules that refuse."""

RefusedOperation = tuple[Operation, str]
"""An operation, and the line that refused it."""


class Distribution:
    """How many values fell below each bound; a value on a bound counts as below it."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Counts:
    """What one batcher counted. Written and read on the batcher's event loop."""

    __slots__ = ("_done", "_other", "batch_operations", "batches", "on_refusals", "redis_seconds", "rules")

    def __init__(self) -> None:
        self._done: dict[str, int] = defaultdict(int)
        self._other: dict[tuple[str, str], int] = defaultdict(int)
        self.batches: dict[str, int] = defaultdict(int)
        self.rules: dict[str, int] = defaultdict(int)
        """Rules that refused, by their sort: of one operation that several refuse each counts."""
        self.batch_operations = Distribution(BATCH_BOUNDS)
        self.redis_seconds = Distribution(SECONDS_BOUNDS)
        self.on_refusals: Callable[[Sequence[RefusedOperation]], None] | None = None
        """Is told what a batch refused, once per batch; must neither wait nor raise."""

    def answered(self, head: str, operations: Sequence[Operation], lines: Sequence[str]) -> None:
        """Counts a batch that Redis answered: `head` says what became of it, then one line per operation."""
        done = self._done
        refused: list[RefusedOperation] = []
        quick = "\n" if head == "undone" else _DONE  # no line begins with "\n": all go the long way
        for operation, line in zip(operations, lines, strict=True):
            if line.startswith(quick):
                done[operation[NAME]] += 1
            else:
                outcome = _outcome(line)
                self._other[operation[NAME], outcome] += 1
                if outcome not in _NOT_REFUSED:
                    refused.append((operation, line))
                    self._count_rules(outcome, line)
        if refused and self.on_refusals is not None:
            self.on_refusals(refused)
        self.batches[head] += 1
        self.batch_operations.add(len(lines))

    def _count_rules(self, outcome: str, line: str) -> None:
        at = _RULES_AT.get(outcome)
        for violation in () if at is None else line.split(" ")[at].split("|"):
            rule, comma, _ = violation.partition(",")
            if comma:
                self.rules[rule] += 1

    def failed(self, outcome: str, groups: Iterable[Sequence[Operation]]) -> None:
        """Counts a batch without an answer."""
        self.batches["failed"] += 1
        for operations in groups:
            self.refused(outcome, operations)

    def refused(self, outcome: str, operations: Iterable[Operation]) -> None:
        """Counts operations that got no answer line."""
        for operation in operations:
            self._other[operation[NAME], outcome] += 1

    def outcomes(self) -> Iterator[tuple[tuple[str, str], int]]:
        """((operation, outcome), count) for all that was counted."""
        yield from (((name, "ok"), count) for name, count in self._done.items())
        yield from self._other.items()


def _outcome(line: str) -> str:
    """What the line of an operation says that was not simply done; what was fine in an undone batch was undone."""
    if line.startswith(REPLAYED):
        return "replayed"
    word = word_of(line)
    return "undone" if word == OK else word
