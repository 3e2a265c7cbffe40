"""One connection to the upstream: a request out, its response back, one exchange after the other.

Our own on httptools (the parser of uvicorn, and llhttp as aiohttp's): aiohttp costs 84 µs of CPU an exchange and this
12, because a proxy hands bytes on that a client library makes values of.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, cast

import httptools

from meter.proxy.headers import Header

HEAD_BYTES_MAX: Final = 128 * 1024
"""Longest head of a response, all headers together."""
BUFFER_BYTES_MAX: Final = 64 * 1024
"""What is read ahead of whoever takes the response."""
TRAILERS_MAX: Final = 64
_BODILESS: Final = frozenset((204, 304))


class UpstreamBroke(Exception):
    """The upstream broke off, or what it said is no HTTP."""


class UpstreamSilent(TimeoutError):
    """The upstream said nothing for too long."""


class UpstreamConnection(asyncio.Protocol):
    """`start` an exchange, await its `head`, `read` its body, then `close`: the connection is kept where it can be."""

    def __init__(
        self,
        *,
        silence_seconds: float,
        kept: Callable[[UpstreamConnection], None],
        lost: Callable[[UpstreamConnection], None],
    ) -> None:
        """`kept` is told when it is free for another exchange, `lost` once when it is gone."""
        self.status = 0
        self.headers: list[Header] = []
        """Of the response, as they came, with names in lower case."""
        self.trailers: list[Header] = []
        """What came behind its body."""
        self.idle_since = 0.0
        self.is_lost = False
        self.was_heard = False
        """Whether anything came in this exchange."""
        self._loop = asyncio.get_running_loop()
        self._silence_seconds = silence_seconds
        self._kept, self._lost = kept, lost
        self._transport: asyncio.Transport | None = None
        self._parser = _parser(self)
        self._is_busy = False
        self._pieces: list[bytes] = []
        self._forget(bodiless=False)
        self._upload: asyncio.Task[None] | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def _forget(self, *, bodiless: bool) -> None:
        """Everything about the response before."""
        self.status, self.headers, self.trailers, self.was_heard = 0, [], [], False
        self._bodiless = bodiless
        self._has_head = self._is_whole = self._can_keep = self._is_interim = self._until_lost = False
        self._head_bytes = self._buffered = 0
        self._is_paused = False
        self._failure: Exception | None = None
        self._heard_at = self._loop.time()

    def start(self, head: bytes, *, bodiless: bool) -> None:
        """Sends a head, or a whole request. `bodiless`: to HEAD, which is answered by a head alone."""
        self._forget(bodiless=bodiless)
        self._is_busy = True
        if self._timer is None:  # one goes on from exchange to exchange
            self._timer = self._loop.call_later(self._silence_seconds, self._look)
        self._write(head)

    def send_body(self, pieces: AsyncIterator[bytes], *, chunked: bool) -> None:
        """Sends a body behind the head while the response may already come."""
        self._upload = self._loop.create_task(self._send(pieces, chunked=chunked))

    async def head(self) -> None:
        """Returns when `status` and `headers` are there. Raises `UpstreamBroke`, `UpstreamSilent` and OSError."""
        while not self._has_head:
            if self._failure is not None:
                raise self._failure
            await self._wait()

    async def read(self) -> bytes:
        """What came of the body; empty at its end. Raises as `head` does, behind all that came before."""
        while not self._pieces:
            if self._is_whole:
                return b""
            if self._failure is not None:
                raise self._failure
            await self._wait()
        pieces = self._pieces
        self._pieces, self._buffered = [], 0
        if self._is_paused and self._transport is not None:
            self._is_paused, self._heard_at = False, self._loop.time()
            self._transport.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def was_read(self) -> bool:
        """Whether the response is whole and nothing of it is left to read."""
        return self._is_whole and not self._pieces

    def close(self) -> None:
        """The exchange is over, whether the response was read or not."""
        upload, self._upload = self._upload, None
        is_sent = upload is None or upload.done()
        if upload is not None and not is_sent:
            upload.cancel()
        self._is_busy = False
        self._pieces = []
        if self._is_whole and self._can_keep and is_sent and not self._is_paused and not self.is_lost:
            self._kept(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Ends the connection."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed: the end of a response that has no other, else a fault."""
        self.is_lost = True
        if self._timer is not None:
            self._timer.cancel()
        if self._is_busy and not self._is_whole:
            if self._has_head and self._until_lost and exc is None and self._failure is None:
                self._is_whole = True
            elif self._failure is None:
                self._failure = exc if isinstance(exc, OSError) else UpstreamBroke("the connection was closed")
        self.resume_writing()
        self._wake()
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of a response; of none, when nobody asked."""
        if not self._is_busy:
            self.abort()
            return
        self.was_heard, self._heard_at = True, self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._can_keep = False
            if not self._is_whole:
                self._fail(UpstreamBroke(f"no HTTP/1.1 response: {error}"))
        else:
            self._head_bytes += 0 if self._has_head else len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._fail(UpstreamBroke("the head of the response is too large"))
        self._wake()

    def pause_writing(self) -> None:
        """The upstream takes no more for now."""
        if self._writable is None:
            self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """It takes more."""
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """One more response, though one was asked for."""
        if self._is_whole:
            self._can_keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header, or one trailer."""
        if self._has_head:
            if len(self.trailers) < TRAILERS_MAX:
                self.trailers.append((name.lower(), value))
            return
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > HEAD_BYTES_MAX:
            raise UpstreamBroke("the head of the response is too large")
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole; an interim one is dropped (RFC 9110, 15.2)."""
        if self._has_head:
            return
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._is_interim, self.headers, self._head_bytes = True, [], 0
            return
        self.status, self._has_head = status, True
        self._until_lost = _ends_with_connection(status, self.headers)
        self._is_whole = self._bodiless

    def on_body(self, body: bytes) -> None:
        """A piece of the body, without its framing."""
        if self._is_whole:
            return
        self._pieces.append(body)
        self._buffered += len(body)
        if self._buffered > BUFFER_BYTES_MAX and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The response is whole, or an interim one is."""
        if self._is_interim:
            self._is_interim = False
        elif not self._is_whole:
            self._is_whole = True
            self._can_keep = self._parser.should_keep_alive()

    # Our own.

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self.is_lost:
            self._transport.write(data)

    async def _send(self, pieces: AsyncIterator[bytes], *, chunked: bool) -> None:
        try:
            async for piece in pieces:
                self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                if self._writable is not None:
                    await self._writable
                if self.is_lost:
                    return
        except Exception as error:  # half a request is none: whoever asks is gone, or breaks off
            self._fail(UpstreamBroke(f"the request broke off: {type(error).__name__}"))
            return
        if chunked:
            self._write(b"0\r\n\r\n")

    def _fail(self, error: Exception) -> None:
        if self._failure is None and not self._is_whole:
            self._failure = error
        self.abort()
        self._wake()

    async def _wait(self) -> None:
        self._waiting = self._loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _look(self) -> None:
        """Gives up on an upstream that is silent for too long, else looks again when that can next be so."""
        self._timer = None
        if not self._is_busy or self._is_whole:
            return
        left = self._silence_seconds
        if not self._is_paused:
            left -= self._loop.time() - self._heard_at
        if left <= 0:
            self._fail(UpstreamSilent(f"nothing came for {self._silence_seconds:g} s"))
            return
        self._timer = self._loop.call_later(left, self._look)


def _parser(connection: UpstreamConnection) -> httptools.HttpResponseParser:
    """As lenient as upstreams are used to: what is no header value is not sent on (meter/proxy/headers.py)."""
    parser = httptools.HttpResponseParser(connection)
    parser.set_dangerous_leniencies(
        lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
    )
    return parser


def _ends_with_connection(status: int, headers: list[Header]) -> bool:
    """Whether a body ends when its connection does (RFC 9112, 6.3)."""
    if status in _BODILESS:
        return False
    for name, value in headers:
        if name == b"transfer-encoding":
            return not value.lower().rstrip().endswith(b"chunked")
    return all(name != b"content-length" for name, _ in headers)
