"""What entries tell of settings, and of the levels that they moved, and what becomes of the accounts of these
(docs/limits.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from meter.engine.outbox import Counter, Entry
from meter.engine.rules import Counters, read_counters
from meter.ledger.entry_rows import COUNTERS


def configured(entry: Entry, before: Mapping[str, object]) -> dict[str, object]:
    """The settings of an account behind an entry that changed some."""
    detail = entry.detail
    return {
        "overdraft_limit": detail["overdraft_limit"],
        "suspended": detail["suspended"],
        "low_credit_thresholds": detail["low_credit_thresholds"],
        **{name: detail.get(name, before[name]) for name in ("rate_card", "price_multiplier", "profile")},
    }


def without_counts(entry: Entry) -> Entry:
    """The entry without what levels had counted behind it in its own history, but with the terms that it gave them."""
    told = entry.detail.get(COUNTERS)
    if not isinstance(told, list):
        return entry
    kept = [one for one in told if len(one) > len(Counters._fields) + 1]
    return entry._replace(detail={**entry.detail, COUNTERS: kept})


def levels_in(entry: Entry) -> list[str]:
    """The levels that an entry has moved (lua/state/level_writing.lua)."""
    told = entry.detail.get(COUNTERS)
    return [str(one[0]) for one in told if isinstance(one, list)] if isinstance(told, list) else []


def step_of(counter: Counter | None, step: int, entry: Entry) -> int:
    """What an entry adds to what its account has spent."""
    return step * entry.amount if counter == "spent" else 0


def move_levels(entry: Entry, step: int, rows: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Takes over what the levels of an entry have counted behind it, into the values of their accounts. Yields what is
    not what it should be: a charge moves each by its amount, a refund too, or not at all.
    """
    for level, values, terms in _counted(entry):
        account = rows[level]
        moved = values.charged - read_counters(account["counters"]).charged
        if terms is None and moved not in ((step, 0) if step < 0 else (step,)):
            yield f"{level}: {entry.kind} of {entry.amount} moved what it counts by {moved}"
        if terms is not None:
            account["rules"] = terms or None
        account["counters"] = None if account["rules"] is None else values.text


def _counted(entry: Entry) -> Iterator[tuple[str, Counters, str | None]]:
    """What these have counted behind it, and their terms where the entry changed them, "" of one that has none now."""
    told = entry.detail[COUNTERS]
    if not isinstance(told, list):
        raise TypeError("counters are a list")
    for name, *numbers in told:
        yield str(name), Counters(*numbers[:4]), str(numbers[4]) if numbers[4:] else None
