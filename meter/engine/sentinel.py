"""Where the master is, as Sentinels tell: all are asked, and the one that saw the latest failover is right.

Asked anew for each connection. A Sentinel that was cut off from the others may go on naming the master of before, so
the first answer is not enough; nor is any, so whoever answers is asked for its role (meter/engine/connections.py), and
sidecars look for what they were told before they spend (lua/state/history.lua).
"""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from meter.engine.redis_url import TlsFiles
from meter.redis_urls import Address, RedisPlace

SENTINEL_SECONDS = 1.0
"""How long Sentinels have to answer, all of them side by side; nobody waits for the rest once most have."""
_REFUSED = (exceptions.AuthenticationError, exceptions.NoPermissionError)
_DISCONNECTED = ("s_down", "o_down", "disconnected")


class _Told(NamedTuple):
    epoch: int
    is_up: bool
    address: Address


class Sentinels:
    """The Sentinels of a URL."""

    def __init__(self, place: RedisPlace, tls: TlsFiles) -> None:
        self._place = place
        self._tls = tls

    async def master(self) -> Address:
        """Where the master is. Raises redis-py's `ConnectionError` when no Sentinel knows one."""
        asking = [asyncio.create_task(self._ask(address)) for address in self._place.hosts]
        try:
            await _most(asking)
        finally:
            for task in asking:
                task.cancel()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        told = [answer for answer in answers if isinstance(answer, _Told)]
        if told:
            return max(told).address
        faults = [answer for answer in answers if isinstance(answer, exceptions.RedisError)]
        for fault in faults:
            if isinstance(fault, _REFUSED):
                raise type(fault)(f"a Sentinel (?sentinel_username=…&sentinel_password=…) says: {fault}")
        why = f": {faults[0]}" if faults else " in time"
        raise exceptions.ConnectionError(f"no Sentinel named the master of {self._place.service!r}{why}")

    async def _ask(self, address: Address) -> _Told:
        url = self._place.server(address)
        options: dict[str, Any] = {
            "username": self._place.options.get("sentinel_username"),
            "password": self._place.options.get("sentinel_password"),
            "socket_timeout": SENTINEL_SECONDS,
            "socket_connect_timeout": SENTINEL_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "ssl": url.startswith("rediss:"),
            **self._tls.options(url),
        }
        client: Any = Redis(host=address[0], port=address[1], **options)
        try:
            found = await client.execute_command("SENTINEL", "MASTER", self._place.service)
        finally:
            await client.aclose()
        fields = _fields(found)
        is_up = not any(word in fields["flags"] for word in _DISCONNECTED)
        return _Told(int(fields["config-epoch"]), is_up, (fields["ip"], int(fields["port"])))


async def _most(asking: list[asyncio.Task[_Told]]) -> None:
    """Returns when more than half have told something, all have ended, or the time is over."""
    deadline = asyncio.get_running_loop().time() + SENTINEL_SECONDS
    pending, told = set(asking), 0
    while pending and told <= len(asking) // 2:
        left = deadline - asyncio.get_running_loop().time()
        done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            return
        told += sum(task.exception() is None for task in done)


def _fields(found: Any) -> dict[str, str]:
    """A flat list of names and values; of redis-py 8, a dictionary."""
    pairs = found.items() if isinstance(found, dict) else zip(found[::2], found[1::2], strict=True)
    return {_text(name): _text(value) for name, value in pairs}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
