"""What the proxy itself answers, when neither the meter nor the upstream does."""

from __future__ import annotations

import asyncio

import orjson
from starlette.types import Receive, Send

from meter.charging.routes import OTHER
from meter.http.endpoint import header_list, send_rendered
from meter.http.rendered import Rendered
from meter.http.request_id import id_to_answer, named
from meter.proxy.headers import Header, content_length, value_of

READ_OFF_BYTES_MAX = 64 * 1024
"""The server may read the rest of such a request and keep the connection."""
LINGER_BYTES_MAX = 1024 * 1024
LINGER_SECONDS = 2.0
"""How much is read of a request that was refused, before its connection is closed: a client that is cut off while it
sends does not read the answer."""


def readable(rendered: Rendered, provider: str) -> Rendered:
    """A problem that also has the members in which the provider's own clients look for the reason."""
    if provider == OTHER or not rendered.body.endswith(b"}"):
        return rendered
    told = orjson.loads(rendered.body)
    message, code = str(told.get("detail", "")), str(told.get("code", ""))
    error: object
    match provider:
        case "ollama":
            error = message
        case "gemini":
            error = {"code": rendered.status, "message": message, "status": code}
        case _:
            error = {"type": code.lower(), "code": code.lower(), "message": message, "param": None}
    members = orjson.dumps({"message": message, "error": error})
    names = ((b"x-amzn-errortype", code.encode()),) if provider == "bedrock" else ()
    return rendered._replace(body=rendered.body[:-1] + b"," + members[1:], headers=(*rendered.headers, *names))


async def answer(rendered: Rendered, headers: list[Header], receive: Receive, send: Send) -> None:
    """Answers a request whose body was not read, and closes the connection when its rest is not worth reading."""
    length, is_asking = content_length(headers), value_of(headers, b"expect") is not None
    if length is not None and length <= READ_OFF_BYTES_MAX and not is_asking:
        await send_rendered(rendered, send)
        return
    rendered = named(rendered, id_to_answer(rendered))
    head = [*header_list(rendered), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": rendered.status, "headers": head})
    await send({"type": "http.response.body", "body": rendered.body, "more_body": True})
    if not is_asking:
        await _linger(receive)
    await send({"type": "http.response.body", "body": b""})


async def _linger(receive: Receive) -> None:
    left = LINGER_BYTES_MAX
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return
