"""The upstream: one pool of connections, requests out, raw responses back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from meter.proxy.body import RequestBody
from meter.proxy.options import ProxyOptions

HEAD_BYTES_MAX = 64 * 1024
"""Longest status line, and longest header line, of a response."""

_AUTOMATIC_HEADERS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")

UpstreamError = (aiohttp.ClientError, TimeoutError, OSError)
"""What a request, and the reading of a response, may raise."""


class Upstream:
    """Open it in the event loop that uses it: `async with`."""

    def __init__(self, options: ProxyOptions) -> None:
        self._base = options.upstream.rstrip("/")
        self._options = options
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        options = self._options
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=options.upstream_connections_max),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_AUTOMATIC_HEADERS,
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=options.connect_timeout_seconds, sock_read=options.upstream_silence_seconds
            ),
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def request(
        self, method: str, target: str, headers: CIMultiDict[str], body: bytes | RequestBody | None
    ) -> aiohttp.ClientResponse:
        """Sends a request for a path with its query, byte for byte. Raises one of `UpstreamError`.

        POST and the like are sent once; aiohttp repeats an idempotent request whose kept-alive connection was stale.
        """
        if self._session is None:
            raise RuntimeError("the upstream was not opened")
        url = URL(self._base + target, encoded=True)
        return await self._session.request(method, url, headers=headers, data=body, allow_redirects=False)


def raw_headers(response: aiohttp.ClientResponse) -> Iterable[tuple[bytes, bytes]]:
    """The headers as they came, repeated ones too."""
    return response.raw_headers


def is_timeout(error: BaseException) -> bool:
    """Whether the upstream was too slow, rather than away."""
    return isinstance(error, TimeoutError)
