"""Who waits for replicas: METER_WAIT_REPLICAS of them have a change before its caller is told of it.

A master that dies takes with it what no replica has. WAIT comes after the script and cannot undo it, so a change that
too few have in time is done all the same: its caller is told to ask again with the same key, and a second call that is
answered as the first one waits anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from meter.config import Settings
from meter.engine.answers import Operation
from meter.engine.declarations import DECLARED
from meter.engine.outbox import Kind
from meter.errors import NotReplicated

_ROWS = frozenset(name for name, one in DECLARED.items() if one.books)
_GRANTS = frozenset(name for name in _ROWS if {Kind.GRANT, Kind.REFUND} & {*DECLARED[name].books})


@dataclass(frozen=True, slots=True)
class Waits:
    """How many replicas are waited for, 0 for none, how long, and after which operations."""

    replicas: int = 0
    within_ms: int = 0
    names: frozenset[str] = frozenset()

    def wants(self, operations: Iterable[Operation]) -> bool:
        """Whether one of them is waited for."""
        return any(operation[0] in self.names for operation in operations)

    def fault(self, acknowledged: int) -> NotReplicated | None:
        """What a caller is told when only so many replicas have its change; None when they are enough."""
        return None if acknowledged >= self.replicas else NotReplicated(acknowledged, self.replicas)


NOBODY = Waits()


def waits_of(settings: Settings) -> Waits:
    """What the settings say. A quarter of a batch's budget, so that it can be sent a second time."""
    names = _ROWS if settings.wait_replicas_for == "all" else _GRANTS
    return Waits(settings.wait_replicas, settings.redis_timeout_ms // 4, names)
