"""Which addresses are no place for a webhook, as data: where each network is listed, and whether it is a private one.

The two registries are IANA's special-purpose registries of IPv4 and IPv6 (RFC 6890, as of 2025), whole but for what
lies within another entry: what is listed there is never where a stranger's receiver lives, even where it is "globally
reachable" (sinks of AS112, relays). Beside them: multicast, the ranges that IPv6 has given up or not given out, and
what clouds answer on inside. `METER_WEBHOOK_ALLOW_PRIVATE` lets the private ones in, and nothing else of this list.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Special:
    """A network that is not for everybody. `private`: a trusted network may have receivers there."""

    network: IPv4Network | IPv6Network
    what: str
    source: str
    private: bool = False


def _never(network: str, what: str, source: str) -> Special:
    return Special(ip_network(network), what, source)


def _private(network: str, what: str, source: str) -> Special:
    return Special(ip_network(network), what, source, private=True)


# Clouds first: some of them lie within a private network, and the first that has an address decides.
OF_CLOUDS = (
    _never("100.100.100.200/32", "a cloud's metadata", "Alibaba Cloud"),
    _never("168.63.129.16/32", "a cloud's metadata", "Azure"),
    _never("192.0.0.192/32", "a cloud's metadata", "Oracle Cloud"),
    _never("fd00:ec2::/32", "a cloud's metadata", "AWS"),
    _never("fd20:ce::254/128", "a cloud's metadata", "Google Cloud"),
    _never("fd00:42::42/128", "a cloud's metadata", "Scaleway"),
)

IPV4_REGISTRY = (
    _never("0.0.0.0/8", "this network", "RFC 791"),
    _private("10.0.0.0/8", "private", "RFC 1918"),
    _private("100.64.0.0/10", "shared address space", "RFC 6598"),
    _private("127.0.0.0/8", "loopback", "RFC 1122"),
    _never("169.254.0.0/16", "link-local", "RFC 3927"),
    _private("172.16.0.0/12", "private", "RFC 1918"),
    _never("192.0.0.0/24", "IETF protocol assignments", "RFC 6890"),
    _never("192.0.2.0/24", "documentation", "RFC 5737"),
    _never("192.31.196.0/24", "AS112-v4", "RFC 7535"),
    _never("192.52.193.0/24", "AMT", "RFC 7450"),
    _never("192.88.99.0/24", "6to4 relay anycast", "RFC 7526"),
    _private("192.168.0.0/16", "private", "RFC 1918"),
    _never("192.175.48.0/24", "direct delegation AS112", "RFC 7534"),
    _never("198.18.0.0/15", "benchmarking", "RFC 2544"),
    _never("198.51.100.0/24", "documentation", "RFC 5737"),
    _never("203.0.113.0/24", "documentation", "RFC 5737"),
    _never("255.255.255.255/32", "limited broadcast", "RFC 8190"),
    _never("240.0.0.0/4", "reserved", "RFC 1112"),
)

IPV6_REGISTRY = (
    _private("::1/128", "loopback", "RFC 4291"),
    _never("::/128", "unspecified", "RFC 4291"),
    _never("::ffff:0:0/96", "IPv4-mapped", "RFC 4291"),
    _never("64:ff9b::/96", "IPv4-IPv6 translation", "RFC 6052"),
    _never("64:ff9b:1::/48", "IPv4-IPv6 translation", "RFC 8215"),
    _never("100::/64", "discard-only", "RFC 6666"),
    _never("100:0:0:1::/64", "dummy", "RFC 9780"),
    _never("2001::/32", "Teredo", "RFC 4380"),
    _never("2001::/23", "IETF protocol assignments", "RFC 2928"),
    _never("2001:db8::/32", "documentation", "RFC 3849"),
    _never("2002::/16", "6to4", "RFC 3056"),
    _never("2620:4f:8000::/48", "direct delegation AS112", "RFC 7534"),
    _never("3fff::/20", "documentation", "RFC 9637"),
    _never("5f00::/16", "segment routing", "RFC 9602"),
    _private("fc00::/7", "unique-local", "RFC 4193"),
    _never("fe80::/10", "link-local", "RFC 4291"),
)

BESIDE_THEM = (
    _never("224.0.0.0/4", "multicast", "RFC 5771"),
    _never("3ffe::/16", "given back by the 6bone", "RFC 3701"),
    _never("fec0::/10", "site-local", "RFC 3879"),
    _never("ff00::/8", "multicast", "RFC 4291"),
)

SPECIAL = (*OF_CLOUDS, *IPV4_REGISTRY, *IPV6_REGISTRY, *BESIDE_THEM)

GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All that IANA has ever given out of IPv6: anything outside is not reachable, whatever it may become."""

_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""The middle of an IPv6 address whose last 32 bits are an IPv4 address (RFC 5214)."""


def address_fault(text: str, *, allow_private: bool) -> str | None:
    """Why a webhook must not reach an address, as it follows on its text; None when it may. A zone is passed over."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return "is no address"
    found = next((special for special in SPECIAL if address in special.network), None)
    if found is not None:
        if found.private and allow_private:
            return None
        return f"is {found.what} ({found.source}), not a public address"
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
        return "is outside of global unicast (RFC 4291), not a public address"
    if isinstance(address, IPv6Address) and (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return "is a tunnel to an IPv4 address (RFC 5214), not a public address"
    return None


def is_private(text: str) -> bool:
    """Whether `METER_WEBHOOK_ALLOW_PRIVATE` would let an address in."""
    return address_fault(text, allow_private=False) is not None and address_fault(text, allow_private=True) is None
