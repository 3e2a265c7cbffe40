"""P13, X16: which addresses a webhook may reach, by what IANA lists, not by what one library thinks."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.alerts.addresses import BESIDE_THEM, IPV4_REGISTRY, IPV6_REGISTRY, OF_CLOUDS, SPECIAL, address_fault

NEVER = {
    "fec0::1": "site-local (RFC 3879)",
    "feff::1": "site-local (RFC 3879)",
    "168.63.129.16": "a cloud's metadata (Azure)",
    "3fff::1": "documentation (RFC 9637)",
    "3fff:fff:ffff::1": "documentation (RFC 9637)",
    "2620:4f:8000::1": "direct delegation AS112 (RFC 7534)",
    "192.175.48.6": "direct delegation AS112 (RFC 7534)",
    "192.31.196.1": "AS112-v4 (RFC 7535)",
    "192.52.193.1": "AMT (RFC 7450)",
    "192.88.99.1": "6to4 relay anycast (RFC 7526)",
    "192.0.0.9": "IETF protocol assignments (RFC 6890)",
    "192.0.0.192": "a cloud's metadata (Oracle Cloud)",
    "169.254.169.254": "link-local (RFC 3927)",
    "169.254.170.2": "link-local (RFC 3927)",
    "100.100.100.200": "a cloud's metadata (Alibaba Cloud)",
    "fd00:ec2::254": "a cloud's metadata (AWS)",
    "fd00:ec2::23": "a cloud's metadata (AWS)",
    "0.0.0.0": "this network (RFC 791)",
    "0.1.2.3": "this network (RFC 791)",
    "192.0.2.1": "documentation (RFC 5737)",
    "198.51.100.1": "documentation (RFC 5737)",
    "203.0.113.255": "documentation (RFC 5737)",
    "198.18.0.1": "benchmarking (RFC 2544)",
    "198.19.255.255": "benchmarking (RFC 2544)",
    "224.0.0.1": "multicast (RFC 5771)",
    "239.255.255.250": "multicast (RFC 5771)",
    "240.0.0.1": "reserved (RFC 1112)",
    "255.255.255.255": "limited broadcast (RFC 8190)",
    "::": "unspecified (RFC 4291)",
    "fe80::1": "link-local (RFC 4291)",
    "fe80::1%eth0": "link-local (RFC 4291)",
    "ff0e::1": "multicast (RFC 4291)",
    "::ffff:8.8.8.8": "IPv4-mapped (RFC 4291)",
    "::ffff:127.0.0.1": "IPv4-mapped (RFC 4291)",
    "::127.0.0.1": "outside of global unicast (RFC 4291)",
    "::ffff:0:10.0.0.1": "outside of global unicast (RFC 4291)",
    "64:ff9b::10.0.0.1": "IPv4-IPv6 translation (RFC 6052)",
    "64:ff9b:1::10.0.0.1": "IPv4-IPv6 translation (RFC 8215)",
    "2002:7f00:1::": "6to4 (RFC 3056)",
    "2002:808:808::": "6to4 (RFC 3056)",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "Teredo (RFC 4380)",
    "2001:2::1": "IETF protocol assignments (RFC 2928)",
    "2001:10::1": "IETF protocol assignments (RFC 2928)",
    "2001:20::1": "IETF protocol assignments (RFC 2928)",
    "2001:1ff::1": "IETF protocol assignments (RFC 2928)",
    "2001:db8::1": "documentation (RFC 3849)",
    "100::1": "discard-only (RFC 6666)",
    "100:0:0:1::1": "dummy (RFC 9780)",
    "5f00::1": "segment routing (RFC 9602)",
    "3ffe::1": "given back by the 6bone (RFC 3701)",
    "4000::1": "outside of global unicast (RFC 4291)",
    "2600:1f18::5efe:a00:1": "a tunnel to an IPv4 address (RFC 5214)",
    "2600:1f18::200:5efe:808:808": "a tunnel to an IPv4 address (RFC 5214)",
}

PRIVATE = {
    "127.0.0.1": "loopback (RFC 1122)",
    "127.8.8.8": "loopback (RFC 1122)",
    "10.1.2.3": "private (RFC 1918)",
    "172.16.0.1": "private (RFC 1918)",
    "172.31.255.255": "private (RFC 1918)",
    "192.168.1.1": "private (RFC 1918)",
    "100.64.0.1": "shared address space (RFC 6598)",
    "::1": "loopback (RFC 4291)",
    "fc00::1": "unique-local (RFC 4193)",
    "fdff::1": "unique-local (RFC 4193)",
}

PUBLIC = [
    *("8.8.8.8", "1.1.1.1", "172.15.255.255", "172.32.0.1", "100.128.0.1", "192.0.1.1", "198.20.0.1", "223.255.255.1"),
    *("168.63.129.17", "2606:4700:4700::1111", "2001:200::1", "2001:db7::1", "2620:4f:8001::1", "2a00:1450::1"),
]


@pytest.mark.parametrize("address", NEVER)
def test_what_is_reached_nowhere(address: str) -> None:
    """P13, X16: not on a trusted network either."""
    for allow_private in (False, True):
        assert address_fault(address, allow_private=allow_private) == f"is {NEVER[address]}, not a public address"


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_reached_on_a_trusted_network_alone(address: str) -> None:
    assert address_fault(address, allow_private=False) == f"is {PRIVATE[address]}, not a public address"
    assert address_fault(address, allow_private=True) is None


@pytest.mark.parametrize("address", PUBLIC)
def test_what_everybody_reaches(address: str) -> None:
    for allow_private in (False, True):
        assert address_fault(address, allow_private=allow_private) is None


@pytest.mark.parametrize("text", ["", "nonsense", "127.1", "0x7f000001", "2130706433", "1.2.3.4.5", "[::1]", "::1::"])
def test_what_is_no_address(text: str) -> None:
    assert address_fault(text, allow_private=True) == "is no address"


@given(st.ip_addresses())
def test_no_list_of_the_library_is_larger_than_ours(address: IPv4Address | IPv6Address) -> None:
    """Whatever Python itself takes for anything but global is refused as well."""
    if address_fault(str(address), allow_private=False) is None:
        assert address.is_global
        assert not (address.is_multicast or address.is_reserved or address.is_private)


@pytest.mark.parametrize("special", SPECIAL, ids=lambda special: str(special.network))
def test_every_network_of_the_lists_is_refused_from_its_first_address_to_its_last(special: object) -> None:
    network = next(one for one in SPECIAL if one is special).network
    for address in (network.network_address, network.broadcast_address):
        assert address_fault(str(address), allow_private=False) is not None


def test_each_registry_is_there_once() -> None:
    networks = [special.network for special in SPECIAL]
    assert len(set(networks)) == len(networks)
    assert len(SPECIAL) == len(OF_CLOUDS) + len(IPV4_REGISTRY) + len(IPV6_REGISTRY) + len(BESIDE_THEM)
    assert not any(special.private for special in (*OF_CLOUDS, *BESIDE_THEM))
    assert ip_address("fd00:ec2::254") in OF_CLOUDS[3].network
