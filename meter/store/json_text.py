"""JSON for stores that cannot hold every JSON value: MariaDB ends at depth 32, BSON at 100.

A value that is too deep is kept as `{"_json": "its text"}`; so is one that looks like that, and reading undoes both.
"""

from __future__ import annotations

import orjson

DEPTH_MAX = 24

_WRAPPED = b'{"_json":'


def is_deep(text: bytes) -> bool:
    """Whether a JSON text may be deeper than `DEPTH_MAX`."""
    if text.count(b"[") + text.count(b"{") <= DEPTH_MAX:
        return False
    return _depth(orjson.loads(text)) > DEPTH_MAX


def wrapped(text: bytes) -> dict[str, str]:
    """What is kept in place of a value."""
    return {"_json": text.decode()}


def is_wrapped(text: bytes) -> bool:
    """Whether a value would be taken for one that is kept in place of another."""
    return text.startswith(_WRAPPED)


def unwrapped(value: object) -> object:
    """The value that was meant."""
    if isinstance(value, dict) and len(value) == 1:
        inner = value.get("_json")
        if isinstance(inner, str):
            return orjson.loads(inner)
    return value


def to_shallow_json(value: object) -> str:
    """JSON text of no more than `DEPTH_MAX` levels."""
    return shallow_text(orjson.dumps(value).decode())


def shallow_text(text: str) -> str:
    """The same of a JSON text."""
    as_bytes = text.encode()
    return orjson.dumps(wrapped(as_bytes)).decode() if is_wrapped(as_bytes) or is_deep(as_bytes) else text


def from_shallow_json(text: str | bytes) -> object:
    """The value that `to_shallow_json` wrote."""
    return unwrapped(orjson.loads(text))


def json_or_text(text: str | bytes) -> object:
    """The value of a JSON text; one that is none, in a database that does not look, is a string as it stands. Whoever
    wants an object of it sets its row aside, and the rows beside it go on.
    """
    try:
        return orjson.loads(text)
    except (ValueError, TypeError):
        return text


def _depth(value: object) -> int:
    """Levels of lists and objects, without recursion."""
    depth, level = 0, [value]
    while nested := [one for one in level if isinstance(one, list | dict)]:
        depth += 1
        level = [part for one in nested for part in (one.values() if isinstance(one, dict) else one)]
    return depth
