"""Work in the background, as a provider's answers tell of it: a response, a run or a batch that goes on by itself."""

from __future__ import annotations

from typing import NamedTuple

ALWAYS = frozenset(("batch", "message_batch", "thread.run"))
"""Kinds of objects that are always done in the background."""
OPEN = frozenset(
    (
        *("queued", "in_progress", "validating", "finalizing", "requires_action"),
        *("created", "pending", "starting", "processing", "running"),
    )
)
FAILED = frozenset(("failed", "cancelled", "canceled", "expired", "aborted", "timeout_exceeded"))


class Work(NamedTuple):
    """Told by one answer; texts are empty where nothing was told, and a status is in lower case."""

    ids: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()
    status: str = ""
    background: bool = False
    output_file_id: str = ""

    def id_of_begun(self, *, asked: bool, queued: bool = False) -> str:
        """The id of work that this answer begins, empty where it begins none. `asked`: the request asked for it;
        `queued`: such a request begins nothing else.
        """
        if not self.ids or self.status in FAILED:
            return ""
        begins = not ALWAYS.isdisjoint(self.kinds) or ((asked or self.background) and self.status in OPEN)
        return self.ids[0] if begins or (queued and (not self.status or self.status in OPEN)) else ""

    @property
    def failed(self) -> bool:
        """Whether it ended and nothing will be told as used any more."""
        return self.status in FAILED
