"""The headers that tell of rules which let no more through: `RateLimit-Policy` and `RateLimit`, as the IETF drafts have
them, and `Retry-After` (docs/limits.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

Headers = tuple[tuple[bytes, bytes], ...]
SECOND_MS = 1000


class Refusing(NamedTuple):
    """A rule that refuses. `per_ms`: of a rate limit of a window; `retry_after_ms` None: waiting does not help."""

    rule: str
    id: str
    limit: int
    per_ms: int | None
    retry_after_ms: int | None


def rate_headers(limit_id: str, limit: int, per_ms: int | None, left: int, reset_ms: int) -> Headers:
    """The quota and its window, what is left and when all of it is back. `per_ms` None: of what is open at once."""
    if per_ms is None:
        policy, stands = f';q={limit};qu="concurrent-requests"', f";r={left}"
    else:
        policy, stands = f";q={limit};w={_seconds(per_ms)}", f";r={left};t={_seconds(reset_ms)}"
    name = f'"{limit_id}"'
    return ((b"ratelimit-policy", f"{name}{policy}".encode()), (b"ratelimit", f"{name}{stands}".encode()))


def refusal_headers(refusing: Sequence[Refusing]) -> Headers:
    """How long to wait, where waiting helps against all that refuses (the longest wait), and the limit that refuses: of
    several the one that does so longest, else one of what is open at once.
    """
    rates = [one for one in refusing if one.rule == "rate_limit"]
    rates.sort(key=lambda one: one.retry_after_ms or 0, reverse=True)
    tightest = [*rates, *(one for one in refusing if one.rule == "concurrency")][:1]
    headers = [
        header for one in tightest for header in rate_headers(one.id, one.limit, one.per_ms, 0, one.retry_after_ms or 0)
    ]
    waits = [one.retry_after_ms for one in refusing if one.retry_after_ms is not None]
    if waits and len(waits) == len(refusing):
        headers.insert(0, (b"retry-after", str(_seconds(max(waits))).encode()))
    return tuple(headers)


def _seconds(ms: int) -> int:
    """Whole seconds, rounded up."""
    return -(-ms // SECOND_MS)
