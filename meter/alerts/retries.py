"""When a notification is tried again: the schedule that Standard Webhooks recommends, with jitter."""

from __future__ import annotations

import random

MINUTE, HOUR = 60.0, 3600.0
DELAYS_SECONDS = (5.0, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR)
"""From each attempt to the next; after the last one it has failed."""
JITTER = 0.1


def delay_ms(attempts: int, retry_after_seconds: float | None) -> int | None:
    """How long to wait after that many attempts; None: no more. What the receiver asks for is the least."""
    if attempts > len(DELAYS_SECONDS):
        return None
    seconds = DELAYS_SECONDS[attempts - 1] * (1 + JITTER * random.random())
    return round(max(seconds, retry_after_seconds or 0.0) * 1000)
