"""`MeterClient`: the calls of `Credits` over HTTP, to a sidecar."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import aiohttp
from yarl import URL

from meter.credits import Credits
from meter.errors import Unavailable
from meter.surface import BY_NAME

TIMEOUT_SECONDS = 5.0


class MeterClient(Credits):
    """A sidecar at `url`, such as http://127.0.0.1:8000; `async with` opens and closes it."""

    def __init__(self, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._carrier = _Http(url.rstrip("/"), timeout_seconds)
        super().__init__(self._carrier)

    async def __aenter__(self) -> MeterClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._carrier.close()


class _Http:
    """Carries a call over a kept-alive connection. Nothing is repeated here: the caller's key decides that."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def __call__(
        self, name: str, path: Mapping[str, str], query: Mapping[str, str], body: bytes | None, key: str | None
    ) -> tuple[int, bytes, bool]:
        row = BY_NAME[name]
        place = row.path.format_map({member: quote(value, safe="") for member, value in path.items()})
        headers = {"content-type": "application/json"} if body is not None else {}
        if key is not None:
            headers["idempotency-key"] = key
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            async with self._session.request(
                row.method, URL(self._url + row.prefix + place, encoded=True), params=query, data=body, headers=headers
            ) as response:
                return response.status, await response.read(), "idempotency-replayed" in response.headers
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable("http", f"{self._url}: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()
