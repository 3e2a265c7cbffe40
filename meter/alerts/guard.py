"""Where webhooks connect: to public addresses only, checked on the very address that is connected to.

A check when the URL is registered loses to a name that answers differently later (DNS rebinding), so the check is in
the resolver (every address of a name must be public) and again where the socket is made (addresses in URLs too). On a
trusted network private addresses pass as well; what no receiver ever has (meter/alerts/addresses.py) passes nowhere.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from errno import EACCES
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from meter.alerts.addresses import address_fault

LOOKUPS_MAX = 512
"""Names asked for at once: at least one of each endpoint. The threads are made when they are needed."""


class ForbiddenAddress(OSError):
    """The address is not one that a webhook may reach."""

    def __init__(self, text: str) -> None:
        super().__init__(EACCES, text)


class SystemResolver(AbstractResolver):
    """Asks the system, in threads of its own: in those that asyncio shares, a handful of names that nobody answers for
    would hold up every other name.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS_MAX, thread_name_prefix="meter-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return [
            ResolveResult(
                hostname=host,
                host=str(place[0]),
                port=int(place[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, place in found
        ]

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedResolver(AbstractResolver):
    """Resolves names all of whose addresses may be reached. Raises `ForbiddenAddress`."""

    def __init__(self, inner: AbstractResolver, *, allow_private: bool) -> None:
        self._inner = inner
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for one in found:
            _check(one["host"], f"{host} leads to {one['host']}, which", allow_private=self._allow_private)
        return found

    async def close(self) -> None:
        await self._inner.close()


def guarded_socket(address: tuple[Any, ...], *, allow_private: bool) -> socket.socket:
    """The socket for a connection to an address of `getaddrinfo`. Raises `ForbiddenAddress`."""
    family, kind, protocol, _, place = address
    _check(str(place[0]), str(place[0]), allow_private=allow_private)
    return socket.socket(family, kind, protocol)


def connector(resolver: AbstractResolver, *, allow_private: bool) -> aiohttp.TCPConnector:
    """What a session connects by. No connection is kept: each attempt is checked anew. How many there are at once is
    bounded by target, not here, where one target's would be in the way of another's.
    """
    return aiohttp.TCPConnector(
        limit=0,
        force_close=True,
        use_dns_cache=False,
        resolver=GuardedResolver(resolver, allow_private=allow_private),
        socket_factory=partial(guarded_socket, allow_private=allow_private),
    )


def _check(address: str, subject: str, *, allow_private: bool) -> None:
    fault = address_fault(address, allow_private=allow_private)
    if fault is not None:
        raise ForbiddenAddress(f"{subject} {fault}")
