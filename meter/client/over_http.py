"""`MeterClient`: the calls of `Credits` over HTTP, to a sidecar."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

import aiohttp
from yarl import URL

from meter.client.credits import Credits
from meter.contract.calls import BY_NAME
from meter.errors import Unavailable

TIMEOUT_SECONDS = 5.0
CONNECTIONS_MAX = 256
"""More calls at a time wait for a connection, within their timeout: one sidecar process decides no faster for more."""
KEEP_ALIVE_SECONDS = 60.0
"""Shorter than the sidecar keeps an idle connection (75 s), so that no call meets one that is just being closed."""


class MeterClient(Credits):
    """A sidecar at `url`, such as http://127.0.0.1:8000; `async with` opens and closes it.

    Calls share at most `connections_max` kept-alive connections.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        """`api_key`: by which the calls are made, where the sidecar asks for one (METER_AUTH=keys)."""
        self._carrier = _Http(url.rstrip("/"), timeout_seconds, connections_max, api_key)
        super().__init__(self._carrier)

    async def __aenter__(self) -> MeterClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._carrier.close()


class _Http:
    """Carries a call over a kept-alive connection. Nothing is repeated here: the caller's key decides that."""

    def __init__(self, url: str, timeout_seconds: float, connections_max: int, api_key: str | None) -> None:
        self._url = url
        self._own = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._connections_max = connections_max
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def __call__(
        self,
        name: str,
        path: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes | None,
        key: str | None,
        actor: str = "",
    ) -> tuple[int, bytes, bool]:
        call = BY_NAME[name]
        place = call.path.format_map({member: quote(value, safe="") for member, value in path.items()})
        url = URL(self._url + call.prefix + place, encoded=True)
        headers = {**self._own, "content-type": "application/json"} if body is not None else {**self._own}
        if key is not None:
            headers["idempotency-key"] = key
        if actor:
            headers["x-actor"] = actor
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._connections_max, keepalive_timeout=KEEP_ALIVE_SECONDS)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        try:
            async with self._session.request(call.method, url, params=query, data=body, headers=headers) as response:
                return response.status, await response.read(), "idempotency-replayed" in response.headers
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Unavailable("http", f"{self._url}: {type(error).__name__}: {error}") from error

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()
