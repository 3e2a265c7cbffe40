"""The calls of the Python client, carried to their handlers in this process."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from meter.api_key import ApiKey
from meter.client.calls import Carried
from meter.http.exchange import Coroutine, KnownRequest, Request
from meter.http.reading import failure
from meter.http.rendered import JSON_TYPE, Rendered
from meter.http.request_id import id_to_answer, named


class InProcess:
    """Carries a call to its handler; of calls behind the gate, as whoever has `key`."""

    def __init__(self, coroutines: Mapping[str, Coroutine], key: ApiKey | None = None) -> None:
        self._coroutines = coroutines
        self._key = key

    async def __call__(
        self,
        name: str,
        path: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes | None,
        key: str | None,
        actor: str = "",
    ) -> Carried:
        headers = {b"content-type": JSON_TYPE}
        if key is not None:
            headers[b"idempotency-key"] = key.encode()
        if actor:
            headers[b"x-actor"] = actor.encode()
        return carried(await self._answer(name, self._request(path, urlencode(query), headers, body or b"")))

    async def exported(self, name: str, path: Mapping[str, str], query: Mapping[str, str]) -> Rendered:
        """The answer to a call whose items are to be had as CSV or NDJSON, piece by piece."""
        return await self._answer(name, self._request(path, urlencode(query), {}, b""))

    async def _answer(self, name: str, request: Request) -> Rendered:
        try:
            return await self._coroutines[name](request)
        except Exception as error:  # the same answers as over HTTP
            return failure(error)

    def _request(self, path: Mapping[str, str], query: str, headers: Mapping[bytes, bytes], body: bytes) -> Request:
        if self._key is None:
            return Request(path, query, headers, body)
        return KnownRequest(path, query, headers, body, key=self._key)


def carried(rendered: Rendered) -> Carried:
    """An answer as the Python client reads it."""
    rendered = named(rendered, id_to_answer(rendered))
    return rendered.status, rendered.body, rendered.replayed
