"""Which paths are metered.

Servers, routers and upstreams disagree on what `//api`, `/x/../api`, `/%61pi`, `/API`, `/api;v=1`, `/api%3fx`,
`/api./x` and `/\uff41pi` mean. So a path counts by every reading that any of them might have: it is metered when one
reading lies under the prefix, and skipped only when all of them lie under a skipped path. What has no reading that all
share (control characters such as %00, bytes that are no UTF-8, a path that was encoded over and over) counts as
metered, and so does an unusual one that is very long; `meter proxy` refuses control characters. Whoever plays with
spellings pays, or is refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

DECODINGS_MAX = 3
"""A path that was encoded more often than this counts as metered."""

UNUSUAL_CHARS_MAX = 4096
"""Of a path that is read in every way; it has about fifty."""

_USUAL = re.compile(r"(?:/(?!\.)[A-Za-z0-9._~!$&'()*+,=:@-]*(?<!\.))+")
_PARAMETERS = re.compile(r";[^/]*")
_BEHIND = re.compile(r"[?#].*", re.DOTALL)
_DOTTED = re.compile(r"[. ]+(?=/|$)")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_UNREADABLE = re.compile("[\x00-\x1f\x7f\ufffd]")
"""Controls, and what stands for bytes that are no UTF-8."""


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
        if _USUAL.fullmatch(path) and "//" not in path:
            return (self._meters(path) or self._meters(below)) and not (self._skips(path) or self._skips(below))
        if _is_opaque(path):
            return True
        whole, routed = _readings(path), _readings(below)
        if not any(map(self._meters, (*whole, *routed))):
            return False
        return not (all(map(self._skips, whole)) or all(map(self._skips, routed)))

    def _meters(self, path: str) -> bool:
        """In any case, also by servers that compare in capitals: there is an \u0131 that becomes an I, and no i."""
        spellings = {path.casefold(), path.upper().casefold()}
        return any(spelt == self._prefix or spelt.startswith(self._prefix + "/") for spelt in spellings)

    def _skips(self, path: str) -> bool:
        return any(path == skip or path.startswith(skip + "/") for skip in self._skip)


def has_controls(path: str) -> bool:
    """Whether a decoded path holds control characters, at which some servers stop reading."""
    return _CONTROL.search(path) is not None


def readings_of(path: str) -> tuple[str, ...]:
    """What servers may take a decoded path for, the likeliest first; none where no reading is shared by all."""
    if _USUAL.fullmatch(path) and "//" not in path:
        return (path,)
    return () if _is_opaque(path) else _readings(path)


def _readings(path: str) -> tuple[str, ...]:
    """What servers may take the path for, as it stands included."""
    readings = {path: None}
    for text in _decodings(path):
        for spelt in (text, unicodedata.normalize("NFKC", text)):
            slashed = spelt.replace("\\", "/")
            for reading in (slashed, _PARAMETERS.sub("", slashed), _BEHIND.sub("", slashed)):
                readings[_resolved(reading)] = None
                readings[_DOTTED.sub("", _resolved(reading))] = None
    return tuple(readings)


def _decodings(path: str) -> Iterator[str]:
    """The path as it stands, and decoded again and again."""
    for _ in range(DECODINGS_MAX + 1):
        yield path
        decoded = unquote(path)
        if decoded == path:
            return
        path = decoded


def _is_opaque(path: str) -> bool:
    if len(path) > UNUSUAL_CHARS_MAX:
        return True
    *_, last = decodings = list(_decodings(path))
    return unquote(last) != last or any(map(_UNREADABLE.search, decodings))


def _resolved(path: str) -> str:
    """Without empty, `.` and `..` segments."""
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    return "/" + "/".join(segments)
