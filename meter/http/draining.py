"""The end of a process that a gateway still sends requests to: first it says so, then it stops listening.

Whoever spreads requests (a Kubernetes Service, a load balancer) hears of an end by a probe that fails, and goes on
sending until it has heard: for so long everything is served as ever.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType


class Drain:
    """Whether a process is about to end, and when it stops listening."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: between SIGTERM and what it does otherwise; 0: none."""
        self._seconds = seconds
        self._over_at: float | None = None

    @property
    def seconds_left(self) -> float | None:
        """Until it stops listening; None while nobody has told it to."""
        return None if self._over_at is None else max(0.0, self._over_at - monotonic())

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """While it is open, the first SIGTERM begins the drain, and what SIGTERM did before comes at its end. Further
        ones change nothing: whoever stops a group of processes sends one to each, and its parent another.
        """
        ends = signal.getsignal(signal.SIGTERM)
        if self._seconds <= 0 or not callable(ends) or threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        def begin(number: int, frame: FrameType | None) -> None:
            if self._over_at is None:
                self._over_at = monotonic() + self._seconds
                loop.call_soon_threadsafe(loop.call_later, self._seconds, ends, number, frame)

        signal.signal(signal.SIGTERM, begin)
        try:
            yield
        finally:
            if signal.getsignal(signal.SIGTERM) is begin:
                signal.signal(signal.SIGTERM, ends)
