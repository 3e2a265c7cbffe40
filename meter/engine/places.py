"""What the id of a reservation says of where it is, and what it said before `meter repartition`.

An id that we made names its partition, so that nobody is asked twice. Where the number of partitions was changed, new
ids say of how many (`r2of4_…`), and one of before is looked for where it cannot tell. The id of a gateway's request is
made anew from user and request each time it is needed: what was held under its earlier name is found by that.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from meter.engine.answers import SUBJECT, Operation
from meter.engine.presented import PresentedOperation
from meter.keys import OUR_RESERVATION_ID

NAMES_MAX = 64
"""Earlier names that one id is looked for under."""


def place_named(number: int, partitions: int, before: Sequence[int]) -> str:
    """A partition, as ids name it: with how many there are, where that was another number `before`."""
    return f"{number}of{partitions}" if before else str(number)


def named_partition(reservation_id: str, partitions: int, before: Sequence[int]) -> int | None:
    """The partition that an id tells; None where any may have it."""
    if partitions == 1:
        return 0
    ours = OUR_RESERVATION_ID.fullmatch(reservation_id)
    if ours is None:
        return None
    number = int(ours.group(2))
    of = int(ours.group(3) or (before[0] if before else partitions))
    return number % partitions if number < of and of % partitions == 0 else None


def earlier_names(reservation_id: str, before: Sequence[int]) -> list[str]:
    """What the reservation of a gateway's request may have been called before, the latest first; none of any other."""
    ours = OUR_RESERVATION_ID.fullmatch(reservation_id)
    if ours is None or ours.group(1) != "q" or ours.group(3) is None:
        return []
    number, partitions, digest = int(ours.group(2)), int(ours.group(3)), ours.group(4)
    names: dict[str, None] = {}
    for age, earlier in reversed(list(enumerate(before))):
        step = gcd(earlier, partitions)
        for place in range(number % step, earlier, step):
            names[f"q{place_named(place, earlier, before[:age])}_{digest}"] = None
    names.pop(reservation_id, None)
    return list(names)[:NAMES_MAX]


def about_another(operation: Operation, reservation_id: str) -> Operation:
    """The same operation on another reservation."""
    changed = (*operation[:SUBJECT], reservation_id, *operation[SUBJECT + 1 :])
    return (
        PresentedOperation.of(changed, *operation.presented) if isinstance(operation, PresentedOperation) else changed
    )
