"""Keeps web pages of others from using a sidecar through the browser of whoever runs it.

A browser on the same machine reaches a server on loopback, and a page of any origin can make it send requests. What it
sends says so: `Origin` and `Sec-Fetch-Site`, which no page can leave out or change; and a page whose name was made to
point to 127.0.0.1 (DNS rebinding) names itself in `Host`. A JSON content type, demanded of every body
(meter/http/reading.py), and headers of our own cannot be sent from another origin without our leave; nobody gets it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from meter.http.endpoint import send_rendered
from meter.http.exchange import joined_headers
from meter.http.rendered import Rendered, problem

_OWN_SITES = frozenset({b"same-origin", b"none"})
_PRIVATE_SUFFIXES = (".localhost", ".internal")
"""Names that nobody can register, so that no page comes from one (RFC 6761; ICANN 2024)."""
_HOSTS_MAX = 256

PASSED_ON = ("/gateway/authorize", "/gateway/commit")
"""What gateways call with the headers of their own clients, browsers of any origin among them. A page cannot call these
by itself: they want headers that need our leave.
"""


_MAY_SEND = (
    "accept",
    "authorization",
    "content-type",
    "idempotency-key",
    "x-actor",
    "x-api-key",
    "x-meter-key",
    "x-request-id",
)
_MAY_READ = ("idempotency-replayed", "ratelimit", "ratelimit-policy", "retry-after", "www-authenticate", "x-request-id")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class BrowserGuard:
    """`is_local`: the server listens on loopback only, so that `Host` must be a name that can mean this machine."""

    def __init__(self, *, is_local: bool, hosts: Collection[str] = (), origins: Collection[str] = ()) -> None:
        """`hosts` are further names to be called by; `origins` are pages that may use the API (`https://app.example`)."""
        self._is_local = is_local
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origin.lower().encode() for origin in origins)
        self._known: dict[bytes, bool] = {}

    def is_plain(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether there is nothing to look at: a known host, and nothing that browsers say. For the hot path."""
        if b"origin" in headers or b"sec-fetch-site" in headers:
            return False
        host = headers.get(b"host")
        return host is None or not self._is_local or self._is_ours(host)

    def is_leave_given(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the page that sent a request may call, so that its browser has to be told so (`Shared`)."""
        origin = headers.get(b"origin")
        return origin is not None and origin.lower() in self._origins

    def refusal(self, headers: Mapping[bytes, bytes], *, reads: bool, passed_on: bool) -> Rendered | None:
        """The answer to a request that must not be served; None where it may.

        `headers` by name in lower case; `reads`: its method is GET or HEAD; `passed_on`: it is one of `PASSED_ON`.
        """
        host = headers.get(b"host")
        if self._is_local and host is not None and not self._is_ours(host):
            detail = "This sidecar listens on loopback and is not called by that name; METER_ALLOWED_HOSTS adds names."
            return problem("host-not-allowed", detail)
        if b"origin" not in headers and b"sec-fetch-site" not in headers:
            return None
        if passed_on or not self._is_foreign(host, headers, reads=reads):
            return None
        detail = "A page of another origin may not call this; METER_ALLOWED_ORIGINS names those that may."
        return problem("foreign-origin", detail)

    def _is_ours(self, host: bytes) -> bool:
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= _HOSTS_MAX:  # only a client that plays sends so many
                self._known.clear()
            known = self._known[host] = self._means_this_machine(host.decode("latin-1").lower())
        return known

    def _means_this_machine(self, host: str) -> bool:
        """An address, a name without a dot (no public name is one), or one that was allowed."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name in self._hosts or host in self._hosts or "." not in name.strip("."):
            return True
        return name.endswith(_PRIVATE_SUFFIXES) or _is_address(name)

    def _is_foreign(self, host: bytes | None, headers: Mapping[bytes, bytes], *, reads: bool) -> bool:
        origin = headers.get(b"origin")
        if origin is not None:
            own = host is not None and origin.lower().partition(b"://")[2] == host.lower()
            if origin == b"null" and headers.get(b"sec-fetch-site") == b"same-origin":
                return False  # a form of a page of ours that is not to tell where it was (Referrer-Policy: no-referrer)
            return not own and origin.lower() not in self._origins
        if headers[b"sec-fetch-site"] in _OWN_SITES:
            return False
        opens_a_page = headers.get(b"sec-fetch-mode") == b"navigate" and headers.get(b"sec-fetch-dest") == b"document"
        return not (reads and opens_a_page)


class Guarded:
    """ASGI middleware that asks the guard first."""

    def __init__(self, app: ASGIApp, guard: BrowserGuard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses, or passes on."""
        if scope["type"] == "http":
            reads, passed_on = scope["method"] in ("GET", "HEAD"), scope["path"].startswith(PASSED_ON)
            rendered = self._guard.refusal(joined_headers(scope["headers"]), reads=reads, passed_on=passed_on)
            if rendered is not None:
                await send_rendered(rendered, send, head=scope["method"] == "HEAD")
                return
        await self._app(scope, receive, send)


class Shared:
    """ASGI middleware that tells browsers what pages of these origins may send and read (CORS). Keys go in headers, so
    that there are no cookies to be let in. What gateways pass on is none of ours: its owner answers for it.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._shared = CORSMiddleware(
            app,
            allow_origins=[origin.lower() for origin in origins],
            allow_methods=_METHODS,
            allow_headers=_MAY_SEND,
            expose_headers=_MAY_READ,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on, with its headers on the way back; answers a browser that asks beforehand."""
        is_passed_on = scope["type"] == "http" and scope["path"].startswith(PASSED_ON)
        await (self._app if is_passed_on else self._shared)(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether a server that listens there is reached from this machine alone."""
    if host in ("localhost", ""):
        return host == "localhost"
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
