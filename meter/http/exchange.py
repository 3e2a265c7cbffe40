"""One HTTP exchange, whatever carries it: what a handler needs of a request, and what it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType
from typing import Final, NamedTuple

from meter.api_key import ApiKey
from meter.http.rendered import Rendered

TELLING: Final = (b"idempotency-key", b"x-request-id", b"x-actor")
"""Headers that say which operation a request is, and whose."""
NO_HEADERS: Final[Mapping[bytes, bytes]] = MappingProxyType({})


class Caller(NamedTuple):
    """Who calls, by an API key that was let in. `user_id` is the path that the key names, None of an operator's."""

    key: ApiKey
    user_id: str | None

    @property
    def own_mark(self) -> str:
        """What ids that a user's key chooses begin with here, so that nobody meets anybody else's: its root's."""
        root = (self.user_id or "").partition("/")[0]
        return f"k{blake2b(root.encode(), digest_size=5).hexdigest()}."

    def own(self, name: str) -> str:
        """An id as it is known here."""
        return name if self.user_id is None else self.own_mark + name


@dataclass(slots=True)
class Request:
    """A request: path members by name, header names in lower case, the whole body.

    `bare`: it is known to have none of `TELLING`, so that nobody needs to look for them. `caller`: who was let in,
    where somebody looks (meter/api/gate.py). `source`: the address that it came from, "" where nobody can tell.
    """

    path: Mapping[str, str] = field(default_factory=dict)
    query: str = ""
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    bare: bool = False
    caller: Caller | None = None
    source: str = ""


@dataclass(slots=True, kw_only=True)
class KnownRequest(Request):
    """A request that brings no key because whoever carries it has read one already: the session of a console."""

    key: ApiKey


def joined_headers(raw: Iterable[tuple[bytes, bytes]]) -> Mapping[bytes, bytes]:
    """Headers by name in lower case; one that is sent twice is joined by a comma (RFC 9110, 5.3), never half read."""
    pairs = list(raw)
    headers = dict(pairs)
    if len(headers) < len(pairs):
        headers = {}
        for name, value in pairs:
            headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


Respond = Callable[[Rendered], bool]
"""Called exactly once, from the event loop; false where whoever asked is known to have gone, and was not told."""

Handler = Callable[[Request, Respond], None]
"""Starts an exchange; answers at once or when the engine has decided. Raises `Answered` or a `MeterError`."""


Coroutine = Callable[[Request], Awaitable[Rendered]]
"""A handler that may take several steps."""


def awaitable(handler: Handler) -> Coroutine:
    """A hot handler as a coroutine."""

    async def run(request: Request) -> Rendered:
        future: asyncio.Future[Rendered] = asyncio.get_running_loop().create_future()

        def respond(rendered: Rendered) -> bool:
            if future.done():  # the client has gone away
                return False
            future.set_result(rendered)
            return True

        handler(request, respond)
        return await future

    return run
