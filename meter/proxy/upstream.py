"""The upstream: requests out, raw responses back."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final, Self

from aiohappyeyeballs import start_connection
from yarl import URL

from meter.proxy.body import RequestBody
from meter.proxy.connection import UpstreamBroke, UpstreamConnection
from meter.proxy.headers import Header
from meter.proxy.options import ProxyOptions
from meter.proxy.pool import Pool

UpstreamError = (UpstreamBroke, TimeoutError, OSError)
"""What a request, and the reading of a response, may raise."""

NEXT_ADDRESS_SECONDS = 0.25
"""When another address of the upstream is tried beside the first one (RFC 8305)."""
_REPEATABLE: Final = frozenset(("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"))
_WITHOUT_BODY: Final = frozenset(("GET", "HEAD", "OPTIONS", "TRACE"))
"""Methods that need not say that they bring no body."""


class Upstream:
    """Open it in the event loop that uses it: `async with`."""

    def __init__(self, options: ProxyOptions) -> None:
        url = URL(options.upstream)
        self._host, self._port = url.raw_host or "", url.port or 0
        self._is_tls = url.scheme == "https"
        self._base = url.raw_path.rstrip("/").encode("ascii")
        self._host_line = b"host: %b\r\n" % (url.host_port_subcomponent or "").encode("ascii")
        self._options = options
        self._tls: ssl.SSLContext | None = None
        self._pool = Pool(
            self._connect,
            connections_max=options.upstream_connections_max,
            connect_seconds=options.connect_timeout_seconds,
        )

    async def __aenter__(self) -> Self:
        if self._is_tls:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pool.close()

    async def request(
        self, method: str, target: bytes, headers: Sequence[Header], body: bytes | RequestBody, length: int | None
    ) -> UpstreamConnection:
        """Sends a request for a path with its query, byte for byte, and answers the connection when the response's head
        is there; `close` it. `length`: of a body that streams, where it is known. Raises one of `UpstreamError`.

        POST and the like are sent once; an idempotent request is repeated whose kept connection was stale.
        """
        head = self._head(method, target, headers, body, length)
        connection = self._pool.kept()
        if connection is not None:
            try:
                return await _asked(connection, head, method, body, length)
            except (UpstreamBroke, OSError) as error:
                may_repeat = method in _REPEATABLE and not isinstance(body, RequestBody)
                if connection.was_heard or is_timeout(error) or not may_repeat:
                    raise
        return await _asked(await self._pool.opened(), head, method, body, length)

    def _head(
        self, method: str, target: bytes, headers: Sequence[Header], body: bytes | RequestBody, length: int | None
    ) -> bytes:
        lines = [b"%b %b%b HTTP/1.1\r\n" % (method.encode("ascii"), self._base, target)]
        if all(name != b"host" for name, _ in headers):
            lines.append(self._host_line)
        lines += [b"%b: %b\r\n" % header for header in headers]
        if isinstance(body, RequestBody):
            lines.append(b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %d\r\n" % length)
        elif body or method not in _WITHOUT_BODY:
            lines.append(b"content-length: %d\r\n" % len(body))
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            raise UpstreamBroke("a header holds a line break")
        return head + b"\r\n"

    async def _connect(
        self, kept: Callable[[UpstreamConnection], None], lost: Callable[[UpstreamConnection], None]
    ) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        sock = await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS)
        _, connection = await loop.create_connection(
            lambda: UpstreamConnection(silence_seconds=self._options.upstream_silence_seconds, kept=kept, lost=lost),
            sock=sock,
            ssl=self._tls,
            server_hostname=self._host if self._tls else None,
        )
        return connection


async def _asked(
    connection: UpstreamConnection, head: bytes, method: str, body: bytes | RequestBody, length: int | None
) -> UpstreamConnection:
    try:
        if isinstance(body, RequestBody):
            connection.start(head, bodiless=method == "HEAD")
            connection.send_body(body, chunked=length is None)
        else:
            connection.start(head + body, bodiless=method == "HEAD")
        await connection.head()
    except BaseException:
        connection.close()
        raise
    return connection


def is_timeout(error: BaseException) -> bool:
    """Whether the upstream was too slow, rather than away."""
    return isinstance(error, TimeoutError)
