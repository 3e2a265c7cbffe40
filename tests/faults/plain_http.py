"""HTTP for clients of the fault suite, by the standard library alone: no code of ours carries or reads a call."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from urllib.parse import urlsplit


class PlainHttp:
    """Keeps connections to several addresses open. Every call answers; status 0 means that nobody can say."""

    def __init__(self, *, timeout_seconds: float = 3.0) -> None:
        self._timeout_seconds = timeout_seconds
        self._idle: dict[str, list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]] = {}

    async def call(
        self, url: str, method: str, path: str, body: object = None, key: str = "", *, leaves: bool = False
    ) -> tuple[int, str]:
        """Status and text. `leaves`: the client is gone once it has sent."""
        writer = None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                idle = self._idle.setdefault(url, [])
                parts = urlsplit(url)
                reader, writer = idle.pop() if idle else await asyncio.open_connection(parts.hostname, parts.port)
                writer.write(_request(parts.netloc, method, path, body, key))
                await writer.drain()
                if leaves:
                    return 0, ""
                status, text, goes_on = await _answer(reader)
                if goes_on:
                    idle.append((reader, writer))
                    writer = None
                return status, text
        except (OSError, TimeoutError, EOFError, ValueError, asyncio.IncompleteReadError):
            return 0, ""
        finally:
            if writer is not None:
                with suppress(OSError, RuntimeError):
                    writer.transport.abort()

    def close(self) -> None:
        """Closes what is open."""
        for idle in self._idle.values():
            for _, writer in idle:
                writer.transport.abort()
        self._idle.clear()


def _request(host: str, method: str, path: str, body: object, key: str) -> bytes:
    text = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(text)}"]
    lines += ["Content-Type: application/json"] * bool(text) + [f"Idempotency-Key: {key}"] * bool(key)
    return "\r\n".join([*lines, "", ""]).encode() + text


async def _answer(reader: asyncio.StreamReader) -> tuple[int, str, bool]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(first.split(" ")[1]), body.decode(), headers.get("connection", "") != "close"
