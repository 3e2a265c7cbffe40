"""The key paths that a scanner looks for, as a tree built once and shared by all scanners.

Knows how JSON may spell a key; does not know what the numbers at the paths mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Path = tuple[str, ...]
"""Keys from the top-level object inwards: `usage.total_tokens` is `("usage", "total_tokens")`."""

_BYTES_PER_ESCAPE = 6  # `\u0061` for the one byte `a`; no spelling takes more per UTF-8 byte


def parse_path(dotted: str) -> Path:
    """Split a dotted key. Raises ValueError when it is empty or has an empty part."""
    path = tuple(dotted.split("."))
    if not all(path):
        raise ValueError(f"a key path needs a name between its dots: {dotted!r}")
    return path


@dataclass(frozen=True, slots=True)
class KeyNode:
    """One key on the way to a wanted path; the root stands for the top-level object."""

    path: Path
    wanted: bool
    children: Mapping[bytes, KeyNode]
    below: tuple[Path, ...]
    """Every wanted path that starts with this one, itself included."""


class KeyTree:
    """An immutable set of paths, answering for one spelled key at a time."""

    __slots__ = ("_needles", "key_bytes_max", "root")

    def __init__(self, paths: Iterable[Path]) -> None:
        wanted = tuple(dict.fromkeys(paths))
        self.root = _node((), wanted)
        longest = max((len(_encoded(key)) for path in wanted for key in path), default=0)
        self.key_bytes_max = longest * _BYTES_PER_ESCAPE
        """A key spelled in more bytes than this is none of ours."""
        self._needles = _needles(wanted)

    def child(self, node: KeyNode, spelling: bytes) -> KeyNode | None:
        """The node below `node` whose key JSON may spell like this, between its quotes."""
        if b"\\" not in spelling:
            return node.children.get(spelling)
        try:
            key = json.loads(f'"{spelling.decode()}"')
        except ValueError:
            return None
        return node.children.get(_encoded(key))

    def may_occur(self, document: bytes) -> bool:
        """Whether any path could be in the document; False spares scanning it."""
        if self._needles is None or b"\\u" in document:
            return True
        return any(needle in document for needle in self._needles)


def _node(path: Path, wanted: tuple[Path, ...]) -> KeyNode:
    depth = len(path)
    below = tuple(candidate for candidate in wanted if candidate[:depth] == path)
    keys = dict.fromkeys(candidate[depth] for candidate in below if len(candidate) > depth)
    children = {_encoded(key): _node((*path, key), below) for key in keys}
    return KeyNode(path=path, wanted=path in below, children=children, below=below)


def _needles(wanted: tuple[Path, ...]) -> tuple[bytes, ...] | None:
    """Last keys of the paths, or None when one of them has spellings that need no `\\u`."""
    leaves = dict.fromkeys(path[-1] for path in wanted)
    if not all(leaf.isascii() and leaf.replace("_", "").isalnum() for leaf in leaves):
        return None
    return tuple(leaf.encode() for leaf in leaves if not any(o != leaf and o in leaf for o in leaves))


def _encoded(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")
