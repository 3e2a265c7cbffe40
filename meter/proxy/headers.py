"""Which headers cross the proxy, in either direction. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from multidict import CIMultiDict

Header = tuple[bytes, bytes]

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

_READABLE_CODING = re.compile(r"(?:gzip|x-gzip|deflate|identity)\s*(?:;.*)?", re.IGNORECASE)
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_BODILESS_STATUSES = (204, 304)


class Forwarding:
    """How requests look to the upstream. Header names are in lower case."""

    def __init__(self, *, dropped: Iterable[str], preserve_host: bool, ours: Iterable[str] = ()) -> None:
        """`dropped` are headers that are for us alone, `ours` those that we and the upstream go by."""
        self._ours = NOT_THE_CLIENTS | {name.lower().encode() for name in ours}
        self._dropped = HOP_BY_HOP | {
            b"expect",  # we answer it ourselves, by reading the body or by refusing the request
            b"content-length",  # goes with the body, which may change
            RESERVATION_ID,
            *(name.lower().encode() for name in dropped),
        }
        if not preserve_host:
            self._dropped |= {b"host"}

    def upstream(self, headers: list[Header], *, client: str | None, scheme: str, metered: bool) -> CIMultiDict[str]:
        """The request headers to send. A metered request asks for codings only that its usage can be read from."""
        dropped = self._dropped | (_named_by_connection(headers) - self._ours)
        forwarded: CIMultiDict[str] = CIMultiDict()
        for name, value in headers:
            meant = name.replace(b"_", b"-")  # as CGI and WSGI applications will take it
            if name in dropped or meant in dropped or meant.startswith(OURS_PREFIX):
                continue
            text = _text(value)
            if metered and name == b"accept-encoding":
                text = _readable(text)
            forwarded.add(name.decode("latin-1"), text)
        host = next((_text(value) for name, value in headers if name == b"host"), None)
        if client is not None:
            _append(forwarded, "x-forwarded-for", client)
        if host is not None:
            forwarded.setdefault("x-forwarded-host", host)
        forwarded.setdefault("x-forwarded-proto", scheme)
        _append(forwarded, "via", VIA.decode())
        return forwarded


def downstream(headers: Iterable[Header], status: int, ours: list[Header], consumed: Iterable[bytes]) -> list[Header]:
    """The response headers for the client: the upstream's, repeated ones too, but for the `consumed`, then `ours`."""
    found = [(name.lower(), value) for name, value in headers]
    dropped = HOP_BY_HOP | (_named_by_connection(found) - NOT_THE_CLIENTS) | {name for name, _ in ours} | set(consumed)
    if status in _BODILESS_STATUSES:
        dropped |= {b"content-length"}  # of a body that does not follow; ASGI servers insist on it
    kept = [(name, value) for name, value in found if name not in dropped and not _BAD_VALUE.search(value)]
    return [*kept, *ours]


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
    return next((value for found, value in headers if found == name), None)


def wants_upgrade(headers: Iterable[Header]) -> bool:
    """Whether the client asks to speak something else on this connection."""
    return any(name == b"connection" and b"upgrade" in _tokens(value) for name, value in headers)


def _named_by_connection(headers: Iterable[Header]) -> frozenset[bytes]:
    return frozenset(token for name, value in headers if name == b"connection" for token in _tokens(value))


def _tokens(value: bytes) -> Iterator[bytes]:
    return (token.strip().lower() for token in value.split(b","))


def _readable(accept_encoding: str) -> str:
    codings = [coding.strip() for coding in accept_encoding.split(",")]
    return ", ".join(coding for coding in codings if _READABLE_CODING.fullmatch(coding)) or "identity"


def _append(headers: CIMultiDict[str], name: str, value: str) -> None:
    headers[name] = ", ".join([*headers.popall(name, []), value])


def _text(value: bytes) -> str:
    """As text that the client library turns into the same bytes, if they are UTF-8."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")
