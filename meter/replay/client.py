"""The HTTP client of a replay: a call is repeated as it is until it is answered, or patience runs out.

Every call of a replay may be repeated: its reservation_id or grant_id makes it the same call. By hand and not by a
retry library, because a try tells the next one whether an earlier one may have been applied, and how long the sidecar
wants to be left alone. Its connections are our own, because with aiohttp the replay, not the sidecar, was the limit:
64 µs more of processor time per call, and on two busy cores 0.36 and 0.66 of the rate (aiohttp 3.14).
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

import orjson

from meter.errors import MeterError
from meter.replay.http import NoAnswer, NotSent, Pool

TRY_TIMEOUT_SECONDS = 10.0
PAUSE_FIRST_SECONDS = 0.05
PAUSE_MAX_SECONDS = 1.0
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
    """Calls one sidecar. `async with` closes its connections."""

    def __init__(self, url: str, *, patience_seconds: float) -> None:
        self._url = url.rstrip("/")
        self._pool = Pool(url)
        self._patience_seconds = patience_seconds
        self.calls = 0
        self.retries = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pool.close()
        await asyncio.sleep(0)  # transports close in the next turn of the loop

    async def get(self, path: str, *, patience_seconds: float | None = None) -> Answer:
        """Reads. Raises `SidecarUnreachable`."""
        return await self._call("GET", path, b"", patience_seconds or self._patience_seconds)

    async def post(self, path: str, body: Mapping[str, object]) -> Answer:
        """Calls until there is an answer. Raises `SidecarUnreachable`."""
        return await self.send("POST", path, orjson.dumps(body))

    async def send(self, method: str, path: str, body: bytes) -> Answer:
        """The same by another method, with a body that is JSON already."""
        return await self._call(method, path, body, self._patience_seconds)

    async def _call(self, method: str, path: str, body: bytes, patience_seconds: float) -> Answer:
        start = time.perf_counter()
        deadline, pause, doubtful = start + patience_seconds, PAUSE_FIRST_SECONDS, False
        self.calls += 1
        while True:
            wait = 0.0
            try:
                response = await self._pool.request(method, path, body, min(TRY_TIMEOUT_SECONDS, patience_seconds))
                if response.status not in UNDECIDED:
                    seconds = time.perf_counter() - start
                    return Answer(response.status, _members(response.body), doubtful, seconds)
                wait, doubtful = _seconds(response.retry_after), True
                happened = f"{response.status} {response.body[:200].decode(errors='replace')}"
            except NotSent as error:
                happened = str(error)
            except NoAnswer as error:
                happened, doubtful = str(error), True
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


def _seconds(retry_after: str) -> float:
    return float(retry_after) if retry_after.isdecimal() else 0.0
