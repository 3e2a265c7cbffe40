"""The id of a request: the one that it brought in `X-Request-Id`, else a new one, on its answer and in its log lines.

Every answer has it in that header, and every problem in its member `request_id`. An id that was brought is also the
`reference` of what the request booked, where its body names none.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meter.contract.problems import CONTENT_TYPE
from meter.http.rendered import Rendered
from meter.keys import REQUEST_ID
from meter.log import CURRENT_REQUEST, CurrentRequest, current_request_id

HEADER: Final = b"x-request-id"

_drawn = secrets.token_hex(6)
_numbers = count(1)


def new_request_id() -> str:
    """An id that no other process has: a number behind what was drawn at the start, which costs less than a draw."""
    return f"{_drawn}-{next(_numbers):x}"


def brought_id(headers: Mapping[bytes, bytes]) -> str:
    """The id that a request brought; "" where it brought none, or one that the ledger could not keep."""
    value = headers.get(HEADER)
    return "" if value is None else _valid(value)


def request_id_of(pairs: Iterable[tuple[bytes, bytes]]) -> str:
    """The id of a request with these headers: what it brought, once, or a new one."""
    values = [value for name, value in pairs if name == HEADER]
    return (_valid(values[0]) if len(values) == 1 else "") or new_request_id()


def named(rendered: Rendered, request_id: str) -> Rendered:
    """An answer with the id of its request: in a header, and where it is a problem in a member, too."""
    headers = (*rendered.headers, (HEADER, request_id.encode()))
    return rendered._replace(headers=headers, body=named_body(rendered, request_id))


def named_body(rendered: Rendered, request_id: str) -> bytes:
    """The body of an answer; a problem's with the id."""
    if rendered.content_type != CONTENT_TYPE:
        return rendered.body
    return b'%b,"request_id":"%b"}' % (rendered.body[:-1], request_id.encode())


def id_to_answer(rendered: Rendered) -> str:
    """The id under which an answer is given where nobody reads headers: that of the request that is going on."""
    return current_request_id() or rendered.request_id or new_request_id()


class WorkingFor:
    """`with WorkingFor(headers):` inside, log lines and problems have the id of the request with these headers."""

    __slots__ = ("_current", "_token")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._current = CurrentRequest(request_id_of(headers))

    def __enter__(self) -> CurrentRequest:
        self._token = CURRENT_REQUEST.set(self._current)
        return self._current

    def __exit__(self, *_: object) -> None:
        CURRENT_REQUEST.reset(self._token)
        self._current.is_over = True


class Identified:
    """ASGI middleware: while it runs, log lines and problems have the request's id, and every answer tells it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def identified(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                if HEADER not in [name for name, _ in headers]:  # what an upstream names by itself stays
                    headers.append((HEADER, current.request_id.encode()))
                    message = {**message, "headers": headers}
            await send(message)

        with WorkingFor(scope["headers"]) as current:
            await self._app(scope, receive, identified)


def _valid(value: bytes) -> str:
    text = value.decode("latin-1")
    return text if REQUEST_ID.fullmatch(text) else ""
