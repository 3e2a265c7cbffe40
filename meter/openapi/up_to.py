"""A pattern that bounds a number in a text."""

from __future__ import annotations


def whole_numbers_up_to(most: int) -> str:
    """What matches the whole numbers from 0 to `most` without zeros in front, and nothing else: `[0-9]|1[0-2]`."""
    digits = str(most)
    shorter = [_any_of(length) for length in range(1, len(digits))]
    same = [_below(digits, at) for at in range(len(digits))]
    return "|".join(part for part in (*shorter, *same, digits) if part)


def _any_of(length: int) -> str:
    return "[0-9]" if length == 1 else f"[1-9][0-9]{{{length - 1}}}"


def _below(digits: str, at: int) -> str:
    """The numbers of as many digits that have the same digits as `digits` up to `at`, and a smaller one there."""
    first, last = ("1" if at == 0 and len(digits) > 1 else "0"), int(digits[at]) - 1
    if last < int(first):
        return ""
    rest = len(digits) - at - 1
    return f"{digits[:at]}[{first}-{last}]" + (f"[0-9]{{{rest}}}" if rest else "")
