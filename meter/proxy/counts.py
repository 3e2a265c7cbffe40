"""What became of requests at the proxy, counted for `/metrics`; no label names a user, a request or a path."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from meter.api.metrics import Metrics
from meter.charging.policy import Ending
from meter.charging.verdicts import Settled
from meter.contract.answers import Committed, Deducted, Refusal, Released

_WORDS = {ending: ending.name.lower() for ending in Ending}


class ProxyCounts:
    """Plain integers, written on the event loop."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, ...], int] = defaultdict(int)
        self.settlements: dict[tuple[str, ...], int] = defaultdict(int)
        self.endings: dict[tuple[str, ...], int] = defaultdict(int)
        self.upstream_faults: dict[tuple[str, ...], int] = defaultdict(int)

    def request(self, outcome: str) -> None:
        """Counts a request by what was made of it before it went on."""
        self.requests[outcome,] += 1

    def ended(self, ending: Ending) -> None:
        """Counts how a metered exchange ended."""
        self.endings[_WORDS[ending],] += 1

    def settled(self, outcome: Settled | Deducted | None) -> None:
        """Counts how a hold ended."""
        self.settlements[_word(outcome),] += 1

    def show(self, metrics: Metrics, unread: Mapping[tuple[str, ...], int]) -> None:
        """Hands the counters to whoever shows them; `unread`: responses that told no usage."""
        metrics.counted(
            "meter_proxy_unread",
            "Responses that count and told no usage, by why (no usage, too large, coding, framing) and by whose API.",
            ("reason", "provider"),
            unread,
        )
        metrics.counted(
            "meter_proxy_requests",
            "Requests by what was made of them: metered, free (no metered path), unmetered (the meter was away and "
            "--fail=open), or the status they were refused with.",
            ("outcome",),
            self.requests,
        )
        metrics.counted(
            "meter_proxy_settlements",
            "Ends of holds: charged, late (charged after the hold's end), released, refused, unknown (given up).",
            ("outcome",),
            self.settlements,
        )
        metrics.counted(
            "meter_proxy_endings",
            "How metered exchanges ended: clean, cut (upstream or upload broke off), gone (the client left before).",
            ("ending",),
            self.endings,
        )
        metrics.counted(
            "meter_proxy_upstream_faults",
            "Requests that got no answer: upstream-unreachable, upstream-timeout.",
            ("fault",),
            self.upstream_faults,
        )


def _word(outcome: Settled | Deducted | None) -> str:
    match outcome:
        case Committed():
            return "late" if outcome.late else "charged"
        case Deducted():
            return "late"
        case Released():
            return "released"
        case Refusal():
            return "refused"
        case None:
            return "unknown"
