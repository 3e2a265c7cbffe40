"""Which URLs an endpoint may have. Pure: where a name leads is checked at each attempt (meter/alerts/guard.py).

The text is read by this file's own grammar, narrower than any URL library's, so that no library can read another host
or port out of it: ASCII without blanks and controls, a host that is one plain name or one canonical address, no user,
no fragment. An international name is written as DNS has it (xn--…), an IPv4 address as four decimal numbers.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from meter.alerts.addresses import address_fault, is_private

URL_MAX_CHARS = 2_000

ALLOW_PRIVATE = (
    "METER_WEBHOOK_ALLOW_PRIVATE=1 lets webhooks use http:// and private addresses, on trusted networks only"
)

_PLAIN = re.compile(r"[!-~]*")
_ENCODED_CONTROL = re.compile(r"%(?:[01][0-9A-Fa-f]|7[Ff])")
_PARTS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)"
    r"(?P<rest>(?:[/?](?:[A-Za-z0-9\-._~:/?@!$&'()*+,;=\[\]]|%[0-9A-Fa-f]{2})*)?)"
)
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]*\]|[A-Za-z0-9._-]*)(?::(?P<port>[0-9]{1,5}))?")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_ENDS_IN_A_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")
_NAME_MAX_CHARS = 253

_LOCAL_NAMES = ("localhost", "local", "internal", "home.arpa")
"""Names that always mean this machine or this network (RFC 6761, 6762, 8375; ICANN's resolution of July 2024)."""

_WEB_PORTS = (80, 443)
_FIRST_FREE_PORT = 1024
_OTHER_PROTOCOLS = frozenset(
    {1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, *range(6665, 6670), 6679, 6697, 10080}
)
"""The ports from 1024 on that browsers refuse: https://fetch.spec.whatwg.org/#port-blocking, 2025."""


def url_faults(text: str, *, allow_private: bool) -> list[str]:
    """What is wrong with the URL of an endpoint, each as it follows on "the URL"; empty when nothing is."""
    if len(text) > URL_MAX_CHARS:
        return [f"must have at most {URL_MAX_CHARS} characters"]
    if not _PLAIN.fullmatch(text) or _ENCODED_CONTROL.search(text):
        return ["must be ASCII without blanks and control characters; an international name is written as xn--…"]
    if "#" in text:
        return ["must have no fragment"]
    parts = _PARTS.fullmatch(text)
    if parts is None:
        return ["must be a URL such as https://example.com/path"]
    authority = parts["authority"]
    if "@" in authority:
        return ["must not contain a user or password"]
    place = _AUTHORITY.fullmatch(authority)
    if place is None or not place["host"]:
        return ["must name a host, by its name or its address, and at most a port"]
    found = (
        _scheme_fault(parts["scheme"], allow_private=allow_private),
        _host_fault(place["host"], allow_private=allow_private),
        _port_fault(place["port"], allow_private=allow_private),
    )
    return [fault for fault in found if fault is not None]


def same_url(text: str) -> str:
    """One text for all spellings of a URL without faults: scheme and host in lower case, no port that goes without
    saying.
    """
    scheme, _, rest = text.partition("://")
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    default = {"https": ":443", "http": ":80"}.get(scheme.lower(), "")
    shown = authority.lower().removesuffix(default)
    return f"{scheme.lower()}://{shown}{rest[len(authority) :]}"


def _scheme_fault(scheme: str, *, allow_private: bool) -> str | None:
    plain = scheme.lower()
    if plain == "https" or (allow_private and plain == "http"):
        return None
    return "must begin with https:// or http://" if allow_private else f"must begin with https://; {ALLOW_PRIVATE}"


def _port_fault(port: str | None, *, allow_private: bool) -> str | None:
    if port is None:
        return None
    number = int(port)
    if not 0 < number < 2**16 or (len(port) > 1 and port[0] == "0"):
        return "must have a port from 1 to 65535"
    is_free = number >= _FIRST_FREE_PORT and number not in _OTHER_PROTOCOLS
    if allow_private or number in _WEB_PORTS or is_free:
        return None
    return f"must not have port {number}, which is another protocol's"


def _host_fault(host: str, *, allow_private: bool) -> str | None:
    address = _address_of(host)
    if address is None:
        return _name_fault(host, allow_private=allow_private)
    if not address:
        return "must write an IPv4 address as four decimal numbers, an IPv6 address as [2001:…]"
    fault = address_fault(address, allow_private=allow_private)
    if fault is None:
        return None
    remedy = f"; {ALLOW_PRIVATE}" if is_private(address) else ""
    return f"must not lead to {address}, which {fault}{remedy}"


def _address_of(host: str) -> str | None:
    """The address that a host is; None for a name, and "" for what some library may take for an address."""
    try:
        if host[0] == "[":
            return str(IPv6Address(host[1:-1]))
        return str(IPv4Address(host)) if _ENDS_IN_A_NUMBER.fullmatch(host) else None
    except AddressValueError:
        return ""


def _name_fault(name: str, *, allow_private: bool) -> str | None:
    if len(name) > _NAME_MAX_CHARS or not all(map(_LABEL.fullmatch, name.split("."))):
        return "must name a host as DNS has it, without a dot at the end"
    plain = name.lower()
    is_local = "." not in plain or any(f".{plain}".endswith(f".{local}") for local in _LOCAL_NAMES)
    if is_local and not allow_private:
        return f"must not lead to {name}, which is a name of this network; {ALLOW_PRIVATE}"
    return None
