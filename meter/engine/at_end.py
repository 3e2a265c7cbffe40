"""What becomes of a grant when it expires: what of its rest lives on, and whether a renewal follows."""

from __future__ import annotations

import re
from typing import NamedTuple


class AtEnd(NamedTuple):
    """Up to `rollover_max` units of the rest live on for `rollover_ms`; nothing does where it is None. `renews` says
    that the next period's grant of `plan_group` follows; "" is no plan's.
    """

    rollover_max: int | None = None
    rollover_ms: int = 0
    plan_group: str = ""
    renews: bool = False

    @property
    def text(self) -> str:
        """As Redis (lua/state/grant.lua) and the store keep it: `units+milliseconds`, then `@group` or `!group`."""
        rolled = "" if self.rollover_max is None else f"{self.rollover_max}+{self.rollover_ms}"
        return f"{rolled}{'@' if self.renews else '!'}{self.plan_group}" if self.plan_group else rolled

    @property
    def arguments(self) -> tuple[str, str, str, str]:
        """As operations carry it, in the order of `AT_END_ARGUMENTS`; "" for no rollover_max, 1 or 0 for renews."""
        most = "" if self.rollover_max is None else str(self.rollover_max)
        return most, str(self.rollover_ms), self.plan_group, str(int(self.renews))


NOTHING_AT_END = AtEnd()
AT_END_ARGUMENTS = ("rollover_max", "rollover_ms", "plan_group", "renews")

_TEXT = re.compile(r"(?:([0-9]+)\+([0-9]+))?(?:([@!])(\S+))?")


def kept_at_end(rollover_max: str, rollover_ms: str, plan_group: str, renews: str) -> AtEnd:
    """From the arguments of an operation."""
    return AtEnd(int(rollover_max) if rollover_max else None, int(rollover_ms), plan_group, renews == "1")


def read_at_end(text: str | None) -> AtEnd:
    """From the kept text. Raises `ValueError`."""
    if not text:
        return NOTHING_AT_END
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ValueError(f"not what becomes of a grant at its end: {text!r}")
    most, span, mark, group = found.groups()
    return AtEnd(None if most is None else int(most), int(span or 0), group or "", mark == "@")
