"""Calls that a cancelled caller does not tear: each runs in a task of its own, to its end or its time limit.

A driver that is cancelled in the middle of a statement may keep its connection, and with it a lock, for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from meter.connection_faults import first_line, has_no_address, texts_of
from meter.errors import StoreUnavailable, StoreUnknown

T = TypeVar("T")


def away(error: BaseException, detail: str) -> StoreUnavailable:
    """What a call means that a store did not answer."""
    if has_no_address(texts_of(error)):
        return StoreUnknown(f"METER_STORE_URL: its host has no address ({first_line(error)})")
    return StoreUnavailable(detail)


class Calls:
    """The calls of one store. `timeout_seconds` is None where the driver ends each statement in time on its own."""

    def __init__(self, timeout_seconds: float | None) -> None:
        self._timeout_seconds = timeout_seconds
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, call: Coroutine[Any, Any, T], *, timeout_seconds: float | None = None) -> T:
        """The result of a call. Raises `TimeoutError` at the time limit; `timeout_seconds` is another one."""
        limit = self._timeout_seconds and (timeout_seconds or self._timeout_seconds)
        task = asyncio.create_task(_bounded(call, limit))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def drain(self) -> None:
        """Returns when no call runs any more."""
        if self._running:
            await asyncio.wait(self._running)


async def _bounded(call: Coroutine[Any, Any, T], limit: float | None) -> T:
    async with asyncio.timeout(limit):
        return await call
