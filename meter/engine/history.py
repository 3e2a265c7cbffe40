"""What a process remembers of a partition's history, and why a partition is refused, in words.

Redis may come back with less than it acknowledged: an older append-only file, a stale replica. Nothing in Redis tells,
so each process sends the last transaction that it was told of with every batch, and lua/state/history.lua compares.
"""

from __future__ import annotations

from meter.keys import PartitionKeys

LOOK_SECONDS = 1.0
"""How often a process looks for its last transaction in the outbox while others go on: that costs Redis as much as the
rest of the guard.
"""

Place = tuple[int, int, str]
"""Epoch, seq and head (transaction_id) of a transaction."""

NOWHERE: Place = (0, 0, "-")

NO_STORE = "-"
"""In the place of a ledger's id where there is no store at all."""


class Memory:
    """The last transaction of a partition that a process was told of. Replies may come out of order."""

    __slots__ = ("_looked_at", "last")

    def __init__(self) -> None:
        self.last = NOWHERE
        self._looked_at = float("-inf")

    def remember(self, place: Place) -> None:
        """The later of the two counts; a rebuild begins a later epoch."""
        if place[:2] > self.last[:2]:
            self.last = place

    def doubt(self) -> None:
        """The connection was lost: who answers next may be another server, or this one with an older history."""
        self._looked_at = float("-inf")

    def looks(self, now: float) -> int:
        """1 when the next batch is to look for the transaction in the outbox, else 0."""
        if now - self._looked_at < LOOK_SECONDS:
            return 0
        self._looked_at = now
        return 1


def why_refused(keys: PartitionKeys, head: str, rest: str) -> str:
    """The first line of a reply that refuses the batch (lua/apply.lua), in words and with the remedy."""
    state, _, why = rest.partition(" ") if head == "refused" else (head, "", "")
    what, _, about = why.partition(" ")
    if state == "missing":
        state, what, about = "lost", "missing", why
    text = f"partition {keys.number} is not served: {state}"
    if what == "missing":
        names = ", ".join(f"{keys.prefix}:{name}" for name in about.split(" "))
        text += f", missing {names} (evicted, deleted or never loaded)"
    elif what == "behind":
        told, _, at = about.partition(", at ")
        text += f", Redis is at {_words(at)}, though {_words(told)} was acknowledged (an older file, a stale replica)"
    elif why:
        text += f", {why}"
    return text + _REMEDIES.get(state, "")


_REMEDIES = {
    "lost": "; run `meter rebuild`, or the worker with METER_AUTO_REPAIR=1",
    "schema": " made by another version of meter, or METER_PARTITIONS was changed by `meter repartition`",
}


def _words(place: str) -> str:
    epoch, seq, *_ = [*place.split(" "), "?", "?"]
    return f"seq {seq} of epoch {epoch}"
