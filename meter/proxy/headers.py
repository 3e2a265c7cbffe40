"""Which headers cross the proxy, in either direction. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from functools import lru_cache

from meter.http.credentials import AUTHORIZATION, X_API_KEY, key_of

Header = tuple[bytes, bytes]
KEY_HEADERS = frozenset({AUTHORIZATION, X_API_KEY})

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
NOT_THE_CLIENTS = frozenset(
    {
        *(b"host", b"via", b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"),
        *(b"x-request-id", b"authorization", b"cookie", b"set-cookie", b"cache-control"),
        *(b"accept-encoding", b"content-type", b"content-encoding", b"content-length"),
    }
)
"""What `Connection` may not take away, besides the headers that are ours: who asks, by which way, for what and in which
coding. They are for the whole way (RFC 9110, 7.6.1), so that a client that names them is up to something: without the
accepted codings, say, the answer may come in one that we cannot read, and cost nothing."""
OURS_PREFIX = b"x-credits-"
RESERVATION_ID = b"x-reservation-id"
VIA = b"1.1 meter"

_READABLE_CODING = re.compile(rb"(?:gzip|x-gzip|deflate|identity)\s*(?:;.*)?", re.IGNORECASE)
_NONE: frozenset[bytes] = frozenset()
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BODILESS_STATUSES = (204, 304)


class Forwarding:
    """How requests look to the upstream. Header names are in lower case."""

    def __init__(
        self,
        *,
        dropped: Iterable[str],
        preserve_host: bool,
        ours: Iterable[str] = (),
        authorization: str = "",
        identity_header: str = "",
    ) -> None:
        """`dropped` are headers that are for us alone, `ours` those that we and the upstream go by. `authorization` is
        what the upstream is sent in the place of an API key of ours, and `identity_header` tells it whose that is.
        """
        self._authorization, self._identity_header = authorization.encode(), identity_header.lower().encode()
        self._ours = NOT_THE_CLIENTS | {name.lower().encode() for name in ours}
        self._dropped = HOP_BY_HOP | {
            b"expect",  # we answer it ourselves, by reading the body or by refusing the request
            b"content-length",  # goes with the body, which may change
            RESERVATION_ID,
            *(name.lower().encode() for name in dropped),
        }
        if not preserve_host:
            self._dropped |= {b"host"}

    def upstream(
        self, headers: list[Header], *, client: str | None, scheme: str, metered: bool, key_owner: str = ""
    ) -> list[Header]:
        """The request headers to send. A metered request asks for codings only that its usage can be read from. An API
        key of ours goes to nobody; where somebody looked whose it is, the upstream's own stands in its place.
        """
        headers = self._without_keys(headers, key_owner)
        named = _named_by_connection(headers)
        dropped = self._dropped | (named - self._ours) if named else self._dropped
        forwarded: list[Header] = []
        host, told = None, set()
        passed: list[bytes] = []
        ways: list[bytes] = []
        for name, value in headers:
            if name == b"host" and host is None:
                host = value
            if name in dropped or name.startswith(OURS_PREFIX) or (b"_" in name and self._is_meant(name, dropped)):
                continue
            if name == b"x-forwarded-for":
                passed.append(value)
            elif name == b"via":
                ways.append(value)
            elif name == b"accept-encoding" and metered:
                forwarded.append((name, _readable(value)))
            else:
                told.add(name)
                forwarded.append((name, value))
        if client is not None:
            passed.append(client.encode())
        if passed:
            forwarded.append((b"x-forwarded-for", b", ".join(passed)))
        if host is not None and b"x-forwarded-host" not in told:
            forwarded.append((b"x-forwarded-host", host))
        if b"x-forwarded-proto" not in told:
            forwarded.append((b"x-forwarded-proto", scheme.encode()))
        forwarded.append((b"via", b", ".join((*ways, VIA))))
        return forwarded

    def _without_keys(self, headers: list[Header], key_owner: str) -> list[Header]:
        """The headers with what is the upstream's own in the place of API keys of ours, and with whose they are."""
        if not any(name in KEY_HEADERS and key_of(name, value) for name, value in headers):
            return headers
        own = {AUTHORIZATION: self._authorization, X_API_KEY: self._authorization.rpartition(b" ")[2]}
        changed = [(name, own[name] if name in own and key_of(name, value) else value) for name, value in headers]
        if not key_owner or not self._authorization:
            changed = [now for now, (name, value) in zip(changed, headers, strict=True) if now[1] == value]
        if key_owner and value_of(headers, self._identity_header) is None:
            changed.append((self._identity_header, key_owner.encode()))
        return changed

    def _is_meant(self, name: bytes, dropped: Set[bytes]) -> bool:
        """Whether CGI and WSGI applications will take it for one that is dropped."""
        meant = name.replace(b"_", b"-")
        return meant in dropped or meant.startswith(OURS_PREFIX)


def downstream(headers: list[Header], status: int, ours: list[Header], consumed: tuple[bytes, ...]) -> list[Header]:
    """The response headers for the client: the upstream's, repeated ones too, but for the `consumed`, then `ours`.
    Names are in lower case.
    """
    dropped = _of_the_response(tuple([name for name, _ in ours]), consumed, status in _BODILESS_STATUSES)
    if named := _named_by_connection(headers):
        dropped |= named - NOT_THE_CLIENTS
    kept = [(name, value) for name, value in headers if name not in dropped and not _BAD_VALUE.search(value)]
    return kept + ours


@lru_cache(maxsize=64)
def _of_the_response(ours: tuple[bytes, ...], consumed: tuple[bytes, ...], is_bodiless: bool) -> frozenset[bytes]:
    """Without the length of a body that does not follow, since ASGI servers insist on it."""
    return HOP_BY_HOP | {*ours, *consumed, *((b"content-length",) if is_bodiless else ())}


def content_length(headers: Iterable[Header]) -> int | None:
    """The length of the request's body; 0 when there is none, None when it is not known before."""
    for name, value in headers:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            return int(value)
    return 0


def value_of(headers: Iterable[Header], name: bytes) -> bytes | None:
    """The first value of a header."""
    for found, value in headers:
        if found == name:
            return value
    return None


def wants_upgrade(headers: Iterable[Header]) -> bool:
    """Whether the client asks to speak something else on this connection."""
    return b"upgrade" in _named_by_connection(headers)


def _named_by_connection(headers: Iterable[Header]) -> frozenset[bytes]:
    told = [value for name, value in headers if name == b"connection"]
    return frozenset(token for value in told for token in _tokens(value)) if told else _NONE


def _tokens(value: bytes) -> Iterator[bytes]:
    return (token.strip().lower() for token in value.split(b","))


@lru_cache(maxsize=256)
def _readable(accept_encoding: bytes) -> bytes:
    codings = [coding.strip() for coding in accept_encoding.split(b",")]
    return b", ".join(coding for coding in codings if _READABLE_CODING.fullmatch(coding)) or b"identity"
