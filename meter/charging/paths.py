"""Which paths are metered.

Servers, routers and upstreams disagree on what `//api`, `/x/../api`, `/%61pi`, `/API` and `/api;v=1` mean. So a path
counts by every reading that any of them might have: it is metered when one reading lies under the prefix, and skipped
only when all of them lie under a skipped path. Whoever plays with spellings pays, or is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

DECODINGS_MAX = 3
"""A path that was encoded more often than this counts as metered."""

_UNUSUAL = re.compile(r"//|/\.|[%;\\A-Z]")
_PARAMETERS = re.compile(r";[^/]*")


class MeteredPaths:
    """Everything at and below `prefix`, but for what is at and below one of `skip`. The prefix "" or "/" is everything.

    `/api` covers `/api` and `/api/chat`, not `/apiary`. Raises ValueError for a path that does not start with a slash.
    """

    def __init__(self, prefix: str, skip: Sequence[str] = ()) -> None:
        for path in (prefix, *skip):
            if path and not path.startswith("/"):
                raise ValueError(f"a path starts with a slash: {path!r}")
        self._prefix = prefix.rstrip("/").casefold()
        self._skip = tuple(path.rstrip("/") for path in skip)

    def cover(self, path: str, root_path: str = "") -> bool:
        """Whether a decoded path is metered. `root_path` is where the application is mounted; `path` may or may not
        be met with it in front.
        """
        below = path.removeprefix(root_path) if root_path else path
        if not _UNUSUAL.search(path):
            return (self._meters(path) or self._meters(below)) and not (self._skips(path) or self._skips(below))
        whole, routed = _readings(path), _readings(below)
        if not any(self._meters(reading.casefold()) for reading in (*whole, *routed)):
            return _is_opaque(path)
        return not (all(map(self._skips, whole)) or all(map(self._skips, routed)))

    def _meters(self, path: str) -> bool:
        return path == self._prefix or path.startswith(self._prefix + "/")

    def _skips(self, path: str) -> bool:
        return any(path == skip or path.startswith(skip + "/") for skip in self._skip)


def _readings(path: str) -> tuple[str, ...]:
    """What servers may take the path for, as it stands included."""
    readings = {path: None}
    for text in _decodings(path):
        slashed = text.replace("\\", "/")
        for reading in (slashed, _PARAMETERS.sub("", slashed)):
            readings[_resolved(reading)] = None
    return tuple(readings)


def _decodings(path: str) -> list[str]:
    decodings = [path]
    for _ in range(DECODINGS_MAX):
        decoded = unquote(decodings[-1])
        if decoded == decodings[-1]:
            break
        decodings.append(decoded)
    return decodings


def _is_opaque(path: str) -> bool:
    last = _decodings(path)[-1]
    return unquote(last) != last


def _resolved(path: str) -> str:
    """Without empty, `.` and `..` segments."""
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments)
