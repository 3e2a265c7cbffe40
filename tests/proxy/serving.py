"""ASGI applications on real sockets, in the event loop of the test, and clients that speak to them byte by byte."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

DEADLINE_SECONDS = 60.0
"""Far more than anything needs: on a busy machine a process of Python takes 20 s to listen."""
PAUSE_SECONDS = 0.002


async def until(condition: Callable[[], object], what: str) -> None:
    """Returns when the condition is true; fails when it is not in time."""

    async def holds() -> object:
        return condition()

    await until_it(holds, what)


async def until_it(condition: Callable[[], Awaitable[object]], what: str) -> None:
    """`until` for a condition that is awaited."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not await condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"
        await asyncio.sleep(PAUSE_SECONDS)


@asynccontextmanager
async def served(server: uvicorn.Server, *, patiently: bool = True) -> AsyncIterator[int]:
    """The port of a server that runs in this event loop until the end of the block. Then it stops: when the last
    request ended, or as uvicorn does, in its own time.
    """
    config = server.config
    config.port = 0
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await asyncio.wait_for(_stop(server) if patiently else server.shutdown(), DEADLINE_SECONDS)


async def _stop(server: uvicorn.Server) -> None:
    """`Server.shutdown` without its pauses."""
    state = server.server_state
    for listener in server.servers:
        listener.close()
    for connection in tuple(state.connections):
        connection.shutdown()
    await until(lambda: not state.connections and not state.tasks, "the last request ends")
    await server.lifespan.shutdown()


def server_of(app: ASGIApp, *, lifespan: str = "auto") -> uvicorn.Server:
    """A server for an application under test."""
    config = uvicorn.Config(app, host="127.0.0.1", log_level="warning", access_log=False)
    config.lifespan = lifespan  # type: ignore[assignment]
    return uvicorn.Server(config)


@dataclass
class RawAnswer:
    """An HTTP/1.1 answer as it came: `body` is decoded from its framing, `whole` says whether it ended as announced."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for found, value in self.headers if found == name]

    def one(self, name: str) -> str | None:
        """The value of a header that may be there once."""
        values = self.all(name)
        assert len(values) < 2, values
        return values[0] if values else None


class RawClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, text: bytes) -> None:
        self.writer.write(text)
        await self.writer.drain()

    async def head(self) -> tuple[int, list[tuple[str, str]]]:
        """Status and headers of the next answer, interim ones too."""
        text = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE_SECONDS)
        first, *lines = text.decode("latin-1").split("\r\n")[:-2]
        pairs = (line.split(":", 1) for line in lines)
        return int(first.split(" ")[1]), [(name.lower(), value.strip()) for name, value in pairs]

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        size = int(await asyncio.wait_for(self.reader.readline(), DEADLINE_SECONDS) or b"-1", 16)
        if size < 0:
            raise asyncio.IncompleteReadError(b"", None)
        data = await self.reader.readexactly(size)
        await self.reader.readexactly(2)
        return data

    async def answer(self, *, bodiless: bool = False) -> RawAnswer:
        """The next answer as a whole."""
        status, headers = await self.head()
        named = dict(headers)
        parts: list[bytes] = []
        whole = True
        try:
            if bodiless or status in (204, 304) or status < 200:
                pass
            elif named.get("transfer-encoding") == "chunked":
                while part := await self.chunk():
                    parts.append(part)
            else:
                parts.append(await self.reader.readexactly(int(named["content-length"])))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            whole = False
            parts.append(getattr(error, "partial", b""))
        return RawAnswer(status, headers, b"".join(parts), whole)

    async def closed(self) -> bool:
        """Whether the other side closes without a further byte."""
        try:
            return await asyncio.wait_for(self.reader.read(1), DEADLINE_SECONDS) == b""
        except ConnectionError:
            return True

    def leave(self) -> None:
        """Breaks the connection off."""
        self.writer.transport.abort()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[RawClient]:
    """A connection to a port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.close()


async def fetch(port: int, request: bytes, *, bodiless: bool = False) -> RawAnswer:
    """The answer to one request, on a connection of its own."""
    async with connected(port) as client:
        await client.send(request)
        return await client.answer(bodiless=bodiless)


def request(
    method: str, target: str, *headers: str, body: bytes = b"", user: str | None = "user-1", length: bool = True
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {target} HTTP/1.1", "Host: shop.example", *headers]
    if user is not None:
        lines.append(f"X-User-Id: {user}")
    if body and length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
