"""The connections to the upstream that are open, and who waits for one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from meter.proxy.connection import UpstreamConnection

KEEP_SECONDS = 15.0
"""How long a connection is kept that nobody uses."""

Connect = Callable[
    [Callable[[UpstreamConnection], None], Callable[[UpstreamConnection], None]], Awaitable[UpstreamConnection]
]


class Pool:
    """At most `connections_max` at once. Each comes back by itself when it is free, and is forgotten when lost."""

    def __init__(self, connect: Connect, *, connections_max: int, connect_seconds: float) -> None:
        """`connect` is given whom the connection tells that it is free, and that it is lost."""
        self._connect = connect
        self._connections_max = connections_max
        self._connect_seconds = connect_seconds
        self._idle: list[UpstreamConnection] = []
        self._count = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def kept(self) -> UpstreamConnection | None:
        """A connection that is open and free, the one that was used last."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_lost:
                return connection
        return None

    async def opened(self) -> UpstreamConnection:
        """A new connection, or one that becomes free first where there are as many as may be. Raises OSError, and
        `TimeoutError` when that takes too long.
        """
        async with asyncio.timeout(self._connect_seconds):
            while self._count >= self._connections_max:
                await self._wait()
                if (connection := self.kept()) is not None:
                    return connection
            self._count += 1
            try:
                return await self._connect(self._keep, self._forget)
            except BaseException:
                self._one_less()
                raise

    def close(self) -> None:
        """Closes those that are free now, and the others when they become free."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in tuple(self._idle):
            connection.abort()
        self._idle.clear()

    async def _wait(self) -> None:
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._call_next()  # it was our turn
            raise

    def _call_next(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return

    def _keep(self, connection: UpstreamConnection) -> None:
        if self._is_closed:
            connection.abort()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._timer is None:
            self._timer = loop.call_later(KEEP_SECONDS, self._sweep)
        self._call_next()

    def _forget(self, connection: UpstreamConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        self._one_less()

    def _one_less(self) -> None:
        self._count -= 1
        self._call_next()

    def _sweep(self) -> None:
        """The list is in the order in which they became free."""
        loop = asyncio.get_running_loop()
        too_old = loop.time() - KEEP_SECONDS
        old = [connection for connection in self._idle if connection.idle_since <= too_old]
        self._idle = self._idle[len(old) :]
        for connection in old:
            connection.abort()
        left = self._idle[0].idle_since - too_old if self._idle else None
        self._timer = None if left is None else loop.call_later(left, self._sweep)
