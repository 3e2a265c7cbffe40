"""What became of requests at the gateway endpoints, counted for `/metrics`.

By the way in which a gateway told of it (`commit`, `logs`, `syslog`, `ext_proc`) and by a few words; no label names a
user, a request or a gateway.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Literal, Protocol

from meter.engine.answers import FINISHED, FLAG, NAME, NOT_FOUND, OK, REPLAYED, WORD
from meter.engine.operations import COMMIT, DEDUCT, RELEASE, Operation
from meter.engine.priced import DEDUCT_USAGE
from meter.errors import MeterError, Unavailable

Way = Literal["commit", "logs", "syslog", "ext_proc"]
Word = Literal["charged", "late", "released", "repeated", "ended", "unknown", "unavailable", "error"]
"""What became of a settlement."""

SETTLED: frozenset[Word] = frozenset({"charged", "late", "released", "repeated"})
_LATE = COMMIT.field("late")
_ENDED: Mapping[str, Word] = {FINISHED.word: "ended", NOT_FOUND.word: "unknown"}


class CountedBy(Protocol):
    """Takes a counter: its name, what it says, its labels, and what reads its counts."""

    def __call__(self, name: str, text: str, labels: tuple[str, ...], counts: Mapping[tuple[str, ...], int]) -> None:
        """Shows the counts from now on."""


class GatewayCounts:
    """Plain integers, written on the event loop."""

    def __init__(self) -> None:
        self.settlements: dict[tuple[str, ...], int] = defaultdict(int)
        self.missing: dict[tuple[str, ...], int] = defaultdict(int)
        self.entries: dict[tuple[str, ...], int] = defaultdict(int)
        self.dropped: dict[tuple[str, ...], int] = defaultdict(int)
        self.unmetered: dict[tuple[str, ...], int] = defaultdict(int)

    def settled(self, way: Way, settlement: Operation, line: str | MeterError) -> Word:
        """Counts what the engine made of a settlement, and says it in a word."""
        word = _word(settlement, line)
        self.settlements[way, word] += 1
        return word

    def gave_up(self) -> None:
        """Counts a settlement that was never made."""
        self.dropped["settlement",] += 1

    def without_usage(self, way: Way, *, charged: bool) -> None:
        """Counts what the policy made of a request that told no usage."""
        self.missing[way, "charged" if charged else "released"] += 1

    def entry(self, way: Way, outcome: Literal["read", "ignored", "malformed"]) -> None:
        """Counts an entry of an access log."""
        self.entries[way, outcome] += 1

    def show(self, counted_by: CountedBy) -> None:
        """Hands the counters to whoever shows them."""
        counted_by(
            "meter_gateway_settlements",
            "Ends of holds that gateways told of, by outcome: charged, late (charged after the hold's end), released, "
            "repeated (told before), ended (otherwise before), unknown (no such hold), unavailable (Redis), error.",
            ("way", "outcome"),
            self.settlements,
        )
        counted_by(
            "meter_gateway_missing_usage",
            "Successful or abandoned requests that told no usage, by what the policy made of them.",
            ("way", "outcome"),
            self.missing,
        )
        counted_by(
            "meter_gateway_log_entries",
            "Entries of access logs: read, ignored (about no metered request), malformed.",
            ("way", "outcome"),
            self.entries,
        )
        counted_by(
            "meter_gateway_dropped",
            "Lost: settlement (Redis was away for too long, or too many waited; their holds end by themselves), "
            "datagram (by the kernel).",
            ("what",),
            self.dropped,
        )
        counted_by(
            "meter_gateway_unmetered",
            "Requests with METER_FAIL_MODE=open: served while Redis was away, and charged or (in part) unpaid since.",
            ("outcome",),
            self.unmetered,
        )


def _word(settlement: Operation, line: str | MeterError) -> Word:
    if isinstance(line, MeterError):
        return "unavailable" if isinstance(line, Unavailable) else "error"
    fields = line.split(" ")
    if fields[FLAG] == REPLAYED:
        return "repeated"
    if fields[WORD] != OK:
        return _ENDED.get(fields[WORD], "error")
    if settlement[NAME] == RELEASE.name:
        return "released"
    if settlement[NAME] in (DEDUCT.name, DEDUCT_USAGE.name):
        return "late"
    return "late" if fields[_LATE] == "1" else "charged"
