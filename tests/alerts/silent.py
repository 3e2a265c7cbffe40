"""Receivers that do not do what receivers do."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Manner = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Odd:
    """A server of a manner of its own."""

    url: str = ""
    begun: list[bytes] = field(default_factory=list)
    """The first line of each request."""


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts, and never answers."""
    await asyncio.Event().wait()


async def byte_by_byte(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begins a status line, and never comes to its end."""
    while True:
        writer.write(b"H")
        await writer.drain()
        await asyncio.sleep(0.01)


async def taken_with_an_endless_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers 200 and goes on talking."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Cuts the connection off by a reset."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers what is no HTTP, with control characters in it."""
    writer.write(b"\x1b[31m\0\r\n\r\n")
    await writer.drain()
    writer.close()


@asynccontextmanager
async def odd(manner: Manner) -> AsyncIterator[Odd]:
    """A server of that manner on a port of its own."""
    found = Odd()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            found.begun.append(await reader.readline())
            await manner(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield found
    finally:
        server.close()
        for task in tasks:
            task.cancel()
