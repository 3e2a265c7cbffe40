"""An upstream that does what a test says, on a raw socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.proxy.serving import until


@dataclass
class Asked:
    """A request as the upstream got it."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes = b""
    whole: bool = False

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for found, value in self.headers if found == name]


class Reply:
    """Writes a response."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def head(self, status: int, *headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Status", *headers]
        await self.raw("\r\n".join(lines).encode() + b"\r\n\r\n")

    async def json(self, body: bytes, *headers: str, status: int = 200) -> None:
        """A whole JSON response."""
        await self.head(status, "Content-Type: application/json", f"Content-Length: {len(body)}", *headers)
        await self.raw(body)

    async def stream(self, *headers: str, content_type: str = "text/event-stream") -> None:
        """Starts a chunked response."""
        await self.head(200, f"Content-Type: {content_type}", "Transfer-Encoding: chunked", *headers)

    async def chunk(self, data: bytes) -> None:
        """A chunk; the empty one ends the response."""
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def event(self, data: str) -> None:
        """A server-sent event as a chunk."""
        await self.chunk(f"data: {data}\n\n".encode())

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def die(self) -> None:
        """Breaks the connection off."""
        self._writer.transport.abort()


Script = Callable[[Asked, Reply], Awaitable[None]]


@dataclass
class FakeUpstream:
    """`script` answers each request; what was asked is kept."""

    script: Script
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    _connections: set[asyncio.StreamReader] = field(default_factory=set)

    @property
    def open_connections(self) -> int:
        """Connections that nobody closed."""
        return sum(not reader.at_eof() for reader in self._connections)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def was_asked(self, count: int = 1) -> Asked:
        """The last request, when that many came."""
        await until(lambda: len(self.asked) >= count, f"{count} requests upstream")
        return self.asked[-1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self._connections.add(reader)
        try:
            while True:
                asked = await self._read_head(reader)
                self.asked.append(asked)
                await self._read_body(reader, asked)
                await self.script(asked, Reply(writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(reader)
            writer.close()

    async def _read_head(self, reader: asyncio.StreamReader) -> Asked:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        method, target, _ = first.split(" ")
        pairs = (line.split(":", 1) for line in lines)
        return Asked(method, target, [(name.lower(), value.strip()) for name, value in pairs])

    async def _read_body(self, reader: asyncio.StreamReader, asked: Asked) -> None:
        named = dict(asked.headers)
        if named.get("transfer-encoding") == "chunked":
            while size := int(await reader.readuntil(b"\n"), 16):
                asked.body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
        elif "content-length" in named:
            asked.body = await reader.readexactly(int(named["content-length"]))
        asked.whole = True


@asynccontextmanager
async def upstream(script: Script) -> AsyncIterator[FakeUpstream]:
    """An upstream that runs in this event loop until the end of the block."""
    fake = FakeUpstream(script)
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            await fake.serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            serving.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        for task in set(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
