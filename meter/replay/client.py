"""The HTTP client of a replay: a call is repeated as it is until it is answered, or patience runs out.

Every call of a replay may be repeated: its reservation_id or grant_id makes it the same call. aiohttp costs 81 µs of
processor time per call and bare asyncio streams 25 µs, but the sidecar on the same two cores is the limit: 8,200
against 10,000 calls/s.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Self

import aiohttp
import orjson

from meter.errors import MeterError

TRY_TIMEOUT_SECONDS = 10.0
PAUSE_FIRST_SECONDS = 0.05
PAUSE_MAX_SECONDS = 1.0
KEEPALIVE_SECONDS = 4.0  # uvicorn closes an idle connection after 5
UNDECIDED = frozenset({429, 500, 502, 503, 504})
"""Answers after which the same call is made again."""

_EXACT_JSON = json.JSONDecoder(parse_float=Decimal)


class SidecarUnreachable(MeterError):
    """There was no answer within the patience; the message names the call and the last thing that happened."""


class UnexpectedAnswer(MeterError):
    """What answers is no sidecar, or one of another version."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. `doubtful`: an earlier try may have been applied too. `seconds` is the time over all tries."""

    status: int
    body: Mapping[str, object]
    doubtful: bool
    seconds: float

    def amount(self, name: str) -> Decimal:
        """A member that is an amount, exactly. Raises `UnexpectedAnswer`."""
        value = self.body.get(name)
        if not isinstance(value, int | Decimal):
            raise UnexpectedAnswer(f"an answer {self.status} has no amount {name!r}: {str(dict(self.body))[:200]}")
        return Decimal(value)

    @property
    def code(self) -> str:
        """The sidecar's word for a refusal."""
        return str(self.body.get("code", ""))


class Client:
    """Calls one sidecar over at most `connections` connections. `async with` opens and closes them."""

    def __init__(self, url: str, *, connections: int, patience_seconds: float) -> None:
        self._url = url.rstrip("/")
        self._connections = connections
        self._patience_seconds = patience_seconds
        self.calls = 0
        self.retries = 0

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEPALIVE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"content-type": "application/json", "user-agent": "meter-replay"},
            timeout=aiohttp.ClientTimeout(total=min(TRY_TIMEOUT_SECONDS, self._patience_seconds)),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def get(self, path: str, *, patience_seconds: float | None = None) -> Answer:
        """Reads. Raises `SidecarUnreachable`."""
        return await self._call("GET", path, None, patience_seconds or self._patience_seconds)

    async def post(self, path: str, body: Mapping[str, object]) -> Answer:
        """Calls until there is an answer. Raises `SidecarUnreachable`."""
        return await self._call("POST", path, orjson.dumps(body), self._patience_seconds)

    async def _call(self, method: str, path: str, body: bytes | None, patience_seconds: float) -> Answer:
        start = time.perf_counter()
        deadline, pause, doubtful = start + patience_seconds, PAUSE_FIRST_SECONDS, False
        url = self._url + path
        self.calls += 1
        while True:
            wait = 0.0
            try:
                async with self._session.request(method, url, data=body) as response:
                    status, text = response.status, await response.read()
                    if status not in UNDECIDED:
                        return Answer(status, _members(text), doubtful, time.perf_counter() - start)
                    wait = _seconds(response.headers.get("retry-after"))
                    happened = f"{status} {text[:200].decode(errors='replace')}"
            except aiohttp.ClientConnectorError as error:
                happened = str(error.os_error)  # nothing left this machine: not doubtful
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                happened, doubtful = f"{type(error).__name__} {error}".strip(), True
            else:
                doubtful = True
            wait = max(wait, pause * random.uniform(0.5, 1.0))
            if time.perf_counter() + wait > deadline:
                raise SidecarUnreachable(
                    f"{self._url}: no answer to {method} {path} within {patience_seconds:g} s; last: {happened}"
                )
            self.retries += 1
            await asyncio.sleep(wait)
            pause = min(2 * pause, PAUSE_MAX_SECONDS)


def _members(text: bytes) -> Mapping[str, object]:
    """The JSON object of an answer, its numbers exact; empty when it is none."""
    try:
        body: object = _EXACT_JSON.decode(text.decode())
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else 0.0
