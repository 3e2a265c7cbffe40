"""What stands behind an answer, word by word, each with a mark in front; nothing where there is nothing to tell."""

from __future__ import annotations

from typing import NamedTuple

PRICE_MARK = "$"
"""A price (meter/engine/prices.py)."""
LIMITED_MARK = "!"
"""The id of the budget that cut the operation."""
RATE_MARK = "%"
"""Where the tightest rate limit stands (meter/engine/rules.py)."""
WHOLE_MARK = "&"
"""All that an account may do (lua/operations/configure.lua)."""
POOLS_MARK = "="
"""What all who may pay for a path have, and who pays (meter/engine/rules.py)."""
RESTRICTED_MARK = "~"
"""What an account has of restricted grants (meter/engine/restrictions.py). It stands behind refusals, too."""
LEVELS_MARK = "^"
"""What the rules of a path's levels stand at (lua/state/judging.lua)."""
MARKS = frozenset({PRICE_MARK, LIMITED_MARK, RATE_MARK, WHOLE_MARK, POOLS_MARK, RESTRICTED_MARK, LEVELS_MARK})


class Behind(NamedTuple):
    """The texts, without their marks; "" of what is not there."""

    price: str = ""
    limited_by: str = ""
    rate: str = ""
    whole: str = ""
    pools: str = ""
    restricted: str = ""
    levels: str = ""


NOTHING_BEHIND = Behind()


def fields_of(line: str) -> list[str]:
    """The words of a line of answer, without what stands behind it."""
    fields = line.split(" ")
    if fields[1] == "ok":
        while fields[-1][:1] in MARKS:
            fields.pop()
    elif fields[-1][:1] == RESTRICTED_MARK and fields[-2].isdigit():  # behind balances; else it is the name of a model
        fields.pop()
    return fields


def spendable_of(line: str) -> str | None:
    """What all who may pay have for what was asked, in units, by an answer; None where that is what is available."""
    behind = read_behind(line)[1]
    usable = behind.restricted.partition("|")[0].partition(",")[2]
    return behind.pools.partition("|")[0] or usable or None


def read_behind(line: str) -> tuple[str, Behind]:
    """A line of answer without what stands behind it, and that."""
    last = line.rfind(" ")
    if line[last + 1 : last + 2] not in MARKS:
        return line, NOTHING_BEHIND
    found = dict.fromkeys(MARKS, "")
    while line[last + 1 : last + 2] in MARKS:
        found[line[last + 1]] = line[last + 2 :]
        line = line[:last]
        last = line.rfind(" ")
    return line, Behind(*(found[mark] for mark in _IN_ORDER))


_IN_ORDER = (PRICE_MARK, LIMITED_MARK, RATE_MARK, WHOLE_MARK, POOLS_MARK, RESTRICTED_MARK, LEVELS_MARK)


def with_behind(
    line: str, *, price: str | None = None, limited_by: str | None = None, restricted: str | None = None
) -> str:
    """A line of answer with these behind it."""
    if restricted is not None:
        line = f"{line} {RESTRICTED_MARK}{restricted}"
    if limited_by is not None:
        line = f"{line} {LIMITED_MARK}{limited_by}"
    return line if price is None else f"{line} {PRICE_MARK}{price}"


def read_whole(user_id: str, text: str) -> tuple[str, str, str]:
    """All that an account may do, from what stands behind the answer that changed it: its terms of prices, its rules as
    the operation `rules` answers them, and its metadata as JSON.
    """
    terms, counted, metadata = text.split("|", 2)
    counts, _, rules = counted.partition(";")
    return terms.replace(",", " "), f"0 ok {user_id} {counts.replace(',', ' ')};{rules}; 0 0 0", metadata
