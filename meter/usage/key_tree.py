"""The key paths that a scanner looks for, as a tree built once and shared by all scanners.

Knows how JSON may spell a key; does not know what the values at the paths mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Flag, auto

Path = tuple[str, ...]
"""Keys from the top-level object inwards: `usage.total_tokens` is `("usage", "total_tokens")`. `EACH` and `SUM` stand
for the items of an array.
"""

EACH = "[]"
"""Every item of an array; of several numbers the largest counts."""
SUM = "[+]"
"""Every item of an array; their numbers are added."""

_BYTES_PER_ESCAPE = 6  # `\u0061` for the one byte `a`; no spelling takes more per UTF-8 byte


class Wanted(Flag):
    """What is kept of the value at a path."""

    NOTHING = 0
    NUMBER = auto()
    TEXT = auto()
    PRESENCE = auto()
    """Whether there is anything: no null, false, 0 or empty string."""


def parse_path(dotted: str) -> Path:
    """Splits a dotted key; `name[]` and `name[+]` enter an array. Raises ValueError when a part is empty."""
    path: list[str] = []
    for part in dotted.split("."):
        name, items = part, ""
        for mark in (EACH, SUM):
            if part.endswith(mark):
                name, items = part.removesuffix(mark), mark
        if not name:
            raise ValueError(f"a key path needs a name between its dots: {dotted!r}")
        path += [name, items] if items else [name]
    return tuple(path)


@dataclass(frozen=True, slots=True)
class KeyNode:
    """One key on the way to a wanted path; the root stands for the top-level object."""

    path: Path
    wanted: bool
    """Whether anything of the value here is: what follows says what. A `Flag` costs a call each time it is asked."""
    wants_number: bool
    wants_text: bool
    wants_presence: bool
    children: Mapping[bytes, KeyNode]
    names: Mapping[str, KeyNode]
    """The children by their keys as text."""
    items: KeyNode | None
    """What the items are, where the value is an array."""
    alone: bool
    """Whether a number here counts at once, and not only with what stands beside it."""
    base: bool
    """Whether the object here tells all that belongs together: what it holds counts once it is closed."""
    sums: bool
    below: tuple[Path, ...]
    """Every wanted path that starts with this one, itself included."""


class KeyTree:
    """An immutable set of paths, answering for one spelled key at a time."""

    __slots__ = ("key_bytes_max", "root")

    def __init__(self, wanted: Mapping[Path, Wanted], bases: Iterable[Path] = (), alone: Iterable[Path] = ()) -> None:
        """`bases` are objects that tell all that belongs together; `alone` are numbers that belong to nothing."""
        self.root = _node((), wanted, frozenset([(), *bases]), frozenset(alone))
        longest = max((len(_encoded(key)) for path in wanted for key in path), default=0)
        self.key_bytes_max = longest * _BYTES_PER_ESCAPE
        """A key spelled in more bytes than this is none of ours."""

    def child(self, node: KeyNode, spelling: bytes) -> KeyNode | None:
        """The node below `node` whose key JSON may spell like this, between its quotes."""
        if b"\\" not in spelling:
            return node.children.get(spelling)
        try:
            key = json.loads(f'"{spelling.decode()}"')
        except ValueError:
            return None
        return node.children.get(_encoded(key))


def _node(path: Path, wanted: Mapping[Path, Wanted], bases: frozenset[Path], alone: frozenset[Path]) -> KeyNode:
    depth = len(path)
    below = tuple(candidate for candidate in wanted if candidate[:depth] == path)
    keys = dict.fromkeys(candidate[depth] for candidate in below if len(candidate) > depth)
    inner = {key: _node((*path, key), {found: wanted[found] for found in below}, bases, alone) for key in keys}
    kept = wanted.get(path, Wanted.NOTHING)
    return KeyNode(
        path=path,
        wanted=bool(kept),
        wants_number=Wanted.NUMBER in kept,
        wants_text=Wanted.TEXT in kept,
        wants_presence=Wanted.PRESENCE in kept,
        children={_encoded(key): node for key, node in inner.items() if key not in (EACH, SUM)},
        names={key: node for key, node in inner.items() if key not in (EACH, SUM)},
        items=inner.get(EACH) or inner.get(SUM),
        alone=path in alone,
        base=path in bases,
        sums=SUM in path,
        below=below,
    )


def _encoded(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")
