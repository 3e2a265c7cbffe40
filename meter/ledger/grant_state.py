"""What an entry makes of the state of a grant. Pure."""

from __future__ import annotations

from typing import assert_never

from meter.engine.outbox import OfAGrant

_STAYS = ("voided", "expired", "scheduled")


def state_after(fate: OfAGrant | None, before: str, remaining: int, *, is_scheduled: bool, is_made: bool) -> str:
    """The state of a grant that was `before`, by what the entry's kind does to grants. `is_scheduled`: the entry is of
    a grant that begins later; `is_made`: it is the one that made this grant.
    """
    match fate:
        case None:
            return before if before in _STAYS else _left(remaining)
        case "voids":
            return "voided"
        case "begins":
            return "scheduled" if is_scheduled else _left(remaining)
        case "ends":
            if before != "voided" and not is_made:
                return "expired"
            return before if before in _STAYS else _left(remaining)
        case other:
            assert_never(other)


def _left(remaining: int) -> str:
    return "active" if remaining else "exhausted"
