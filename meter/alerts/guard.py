"""Which addresses a webhook may reach: public ones only, checked on the very address that is connected to.

A check when the URL is registered loses to a name that answers differently later (DNS rebinding), so the check is in
the resolver (every address of a name must be public) and again where the socket is made (addresses in URLs too).
"""

from __future__ import annotations

import socket
from errno import EACCES
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

_TRANSLATED = (
    IPv6Network("64:ff9b::/96"),
    IPv6Network("64:ff9b:1::/48"),
    IPv6Network("2002::/16"),
    IPv6Network("2001::/32"),
)

_SPECIAL = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"))  # metadata of one cloud, and a relay


class ForbiddenAddress(OSError):
    """The address is not a public one."""

    def __init__(self, text: str) -> None:
        super().__init__(EACCES, text)


def is_public(text: str) -> bool:
    """Whether an address is reachable on the internet, and not a way around: mapped and translated ones never are."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and (
        address.ipv4_mapped is not None or any(address in network for network in _TRANSLATED)
    ):
        return False
    if any(address in network for network in _SPECIAL):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


class PublicResolver(AbstractResolver):
    """Resolves names whose addresses are all public. Raises `ForbiddenAddress`."""

    def __init__(self, inner: AbstractResolver | None = None) -> None:
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for one in found:
            if not is_public(one["host"]):
                raise ForbiddenAddress(f"{host} has the address {one['host']}, which is not public")
        return found

    async def close(self) -> None:
        await self._inner.close()


def public_socket(address: tuple[Any, ...]) -> socket.socket:
    """The socket for a connection to an address of `getaddrinfo`. Raises `ForbiddenAddress`."""
    family, kind, protocol, _, place = address
    if not is_public(str(place[0])):
        raise ForbiddenAddress(f"{place[0]} is not a public address")
    return socket.socket(family, kind, protocol)


def connector(*, allow_private: bool, resolver: AbstractResolver | None = None) -> aiohttp.TCPConnector:
    """What a session connects by. No connection is kept: each attempt is checked anew."""
    if allow_private:
        return aiohttp.TCPConnector(force_close=True, use_dns_cache=False)
    return aiohttp.TCPConnector(
        force_close=True, use_dns_cache=False, resolver=PublicResolver(resolver), socket_factory=public_socket
    )
