"""A pool of HTTP/1.1 connections to one server, for calls that are short and many.

Bytes are parsed by httptools, as in uvicorn. Knows nothing of credits and repeats nothing: what goes wrong is said with
whether the request had left.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

IDLE_MAX_SECONDS = 4.0  # uvicorn closes an idle connection after 5


class NotSent(Exception):
    """There was no connection; nothing left this machine."""


class NoAnswer(Exception):
    """The request left, and its answer did not come back whole."""


@dataclass(frozen=True, slots=True)
class Response:
    """What came back. `retry_after` is empty when there is no such header."""

    status: int
    body: bytes
    retry_after: str


class Pool:
    """Sends requests to one server, each over a connection of its own for as long as it takes."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._prefix = parts.path.rstrip("/")
        host = parts.netloc.rpartition("@")[2]
        self._head = f" HTTP/1.1\r\nHost: {host}\r\nUser-Agent: meter-replay\r\nContent-Type: application/json\r\n"
        self._idle: list[_Connection] = []

    def close(self) -> None:
        """Closes the connections that no request is using."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def request(self, method: str, path: str, body: bytes, timeout_seconds: float) -> Response:
        """Sends a request and waits for the answer. Raises `NotSent` or `NoAnswer`."""
        head = f"{method} {self._prefix}{path}{self._head}Content-Length: {len(body)}\r\n\r\n"
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(timeout_seconds):
                connection = self._take() or await self._connect()
                response = await connection.exchange(head.encode() + body)
        except TimeoutError:
            if connection is None:
                raise NotSent(f"no connection within {timeout_seconds:g} s") from None
            raise NoAnswer(f"no answer within {timeout_seconds:g} s") from None
        finally:
            if connection is not None:
                self._give_back(connection)
        return response

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            return (await loop.create_connection(_Connection, self._host, self._port, ssl=self._ssl))[1]
        except TimeoutError:
            raise
        except OSError as error:
            raise NotSent(f"{self._host}:{self._port}: {error.strerror or error}") from None

    def _take(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and time.monotonic() - connection.used_at < IDLE_MAX_SECONDS:
                return connection
            connection.close()
        return None

    def _give_back(self, connection: _Connection) -> None:
        if connection.usable:
            connection.used_at = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()


class _Connection(asyncio.Protocol):
    """One connection with at most one request on it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Response] | None = None
        self._body: list[bytes] = []
        self._retry_after = ""
        self.used_at = 0.0
        self.usable = False
        """Whether the connection is open and between two requests."""

    async def exchange(self, request: bytes) -> Response:
        if self._transport is None:
            raise NoAnswer("the connection was closed")
        self.usable = False
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name

    def connection_lost(self, _: Exception | None) -> None:
        self._transport, self.usable = None, False
        self._fail("the connection was closed")

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():  # nobody asked
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"what came back is not HTTP: {error}")
            self.close()

    def on_message_begin(self) -> None:
        self._body, self._retry_after = [], ""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and self._answer is not None and not self._answer.done():  # below: the answer comes later
            self.usable = bool(self._parser.should_keep_alive())
            self._answer.set_result(Response(status, b"".join(self._body), self._retry_after))

    def _fail(self, why: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(NoAnswer(why))
