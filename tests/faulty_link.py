"""A TCP proxy in front of a server that loses replies, or keeps requests back, when told to."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

CHUNK = 65536


class FaultyLink:
    """Forwards everything but what `lose_replies` and `keep_back` say; a command is known by its name in a request."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname, parts.port)
        self._losing: tuple[bytes, Literal["reset", "silence"]] = (b"", "reset")
        self._to_lose = 0
        self._keeping: bytes | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.kept: list[tuple[asyncio.StreamWriter, bytes]] = []
        self.lost = 0

    def lose_replies(self, command: bytes, times: int, then: Literal["reset", "silence"]) -> None:
        """The next replies to this command never arrive; the connection is closed or stays silent."""
        self._losing, self._to_lose = (command, then), times

    def keep_back(self, command: bytes) -> None:
        """The next request with this command waits here until `pass_on`."""
        self._keeping = command

    async def pass_on(self) -> None:
        """Sends what was kept back, late."""
        for upstream, request in self.kept:
            upstream.write(request)
            await upstream.drain()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.close()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection(*self._address)
        self._writers += [writer, upstream]
        swallow = asyncio.Event()
        for one in (self._requests(reader, upstream, swallow), self._replies(upstream_reader, writer, swallow)):
            pump = asyncio.create_task(one)
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _requests(
        self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter, swallow: asyncio.Event
    ) -> None:
        with suppress(ConnectionError):
            while request := await reader.read(CHUNK):
                if self._keeping is not None and self._keeping in request:
                    self._keeping = None
                    self.kept.append((upstream, request))
                    continue
                if self._to_lose and self._losing[0] in request:
                    self._to_lose -= 1
                    swallow.set()
                upstream.write(request)
                await upstream.drain()
        if not any(kept is upstream for kept, _ in self.kept):
            upstream.close()

    async def _replies(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, swallow: asyncio.Event
    ) -> None:
        with suppress(ConnectionError):
            while reply := await reader.read(CHUNK):
                if swallow.is_set():
                    self.lost += 1
                    if self._losing[1] == "reset":
                        break
                    continue
                writer.write(reply)
                await writer.drain()
        writer.close()
