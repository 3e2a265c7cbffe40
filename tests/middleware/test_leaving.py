"""C3: clients that leave, whatever stands between the metering and the application, and whatever serves them both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meter import Meter
from meter.middleware import CreditDeductionMiddleware
from tests.middleware.shop import Shop
from tests.middleware.test_live import FIRST, LAST, SILENT, settles_at
from tests.proxy.proxied import balance
from tests.proxy.serving import connected, request, served, server_of, until, until_it

SCOPE: Scope = {"type": "http", "method": "GET", "path": "/api/stream", "headers": [(b"x-user-id", b"user-1")]}
DISCONNECT: Message = {"type": "http.disconnect"}


class Inner(BaseHTTPMiddleware):
    """Passes everything on, as `@app.middleware("http")` does."""

    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request)


class Reader(Inner):
    """Reads the body before the application does."""

    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        await request.body()
        return await call_next(request)


def metered(shop: Shop, bank: Meter, inside: tuple[type[Inner], ...], **options: object) -> ASGIApp:
    app = shop.app
    for wrapper in inside:
        app.add_middleware(wrapper)
    return CreditDeductionMiddleware(app, bank, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("inside", [(), (Inner,), (Reader,), (Inner, Inner)], ids=len)
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("piece", "options", "left"),
    [
        (SILENT, {}, 900),
        (FIRST, {}, 997),
        (SILENT, {"on_disconnect": "release", "on_missing_usage": "estimate"}, 1000),
    ],
)
async def test_c3_leaving_in_mid_stream_costs_by_the_policy_for_leaving(
    bank: Meter, inside: tuple[type[Inner], ...], method: str, piece: bytes, options: dict[str, object], left: int
) -> None:
    shop = Shop(pieces=[piece, LAST])
    async with served(server_of(metered(shop, bank, inside, **options))) as port:
        async with connected(port) as client:
            await client.send(request(method, "/api/stream", body=b"{}" if method == "POST" else b""))
            await client.head()
            await client.chunk()
        await settles_at(bank, left)


@pytest.mark.parametrize("inside", [(), (Inner,)], ids=len)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_c3_leaving_before_the_first_byte_is_leaving(
    bank: Meter, inside: tuple[type[Inner], ...], version: str, method: str
) -> None:
    shop = Shop()
    asked, go_on, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def think(_: Request) -> Response:
        asked.set()
        await go_on.wait()
        answered.set()
        return JSONResponse({"message": "hi"})

    shop.answer = think  # type: ignore[method-assign, assignment]
    server = server_of(metered(shop, bank, inside))
    async with served(server) as port:
        async with connected(port) as client:
            await client.send(request(method, "/api/chat").replace(b"HTTP/1.1", b"HTTP/" + version.encode()))
            await asked.wait()
            client.leave()
        await until(lambda: not server.server_state.connections, "the server knows that the client left")
        go_on.set()
        await settles_at(bank, 900)


@pytest.mark.parametrize("inside", [(), (Inner,)], ids=len)
async def test_c3_who_was_given_all_that_was_announced_has_not_left(
    bank: Meter, inside: tuple[type[Inner], ...]
) -> None:
    """Leaving after the last byte, while the application still has to say that it was the last one."""
    shop = Shop(pieces=[SILENT, b""], headers={"content-length": str(len(SILENT))})
    server = server_of(metered(shop, bank, inside))
    async with served(server) as port:
        async with connected(port) as client:
            await client.send(request("GET", "/api/stream"))
            await client.head()
            assert await client.reader.readexactly(len(SILENT)) == SILENT
            client.leave()
        await until(lambda: not server.server_state.connections, "the server knows that the client left")
        shop.go_on.set()
        await settles_at(bank, 1000)


@pytest.mark.parametrize("inside", [(), (Inner,)], ids=len)
async def test_c3_leaving_during_the_upload_is_free(bank: Meter, inside: tuple[type[Inner], ...]) -> None:
    shop = Shop()

    async def read_all(body: Request) -> Response:
        await body.body()
        return Response()

    async def is_held() -> bool:
        return (await balance(bank))[1] > 0

    shop.answer = read_all  # type: ignore[method-assign, assignment]
    async with served(server_of(metered(shop, bank, inside))) as port:
        async with connected(port) as client:
            await client.send(request("POST", "/api/chat", "Content-Length: 10", body=b"half", length=False))
            await until_it(is_held, "the hold is there")
            client.leave()
        await settles_at(bank, 1000)


class Server:
    """A server as the application sees it: gives the messages, then waits; `leave` makes the client leave."""

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)
        self._left = asyncio.Event()
        self.sent: list[Message] = []

    def leave(self) -> None:
        self._left.set()

    async def receive(self) -> Message:
        if self._messages:
            return self._messages.pop(0)
        await self._left.wait()
        return DISCONNECT

    async def send(self, message: Message) -> None:
        """What is sent to nobody is dropped in silence, as most servers do."""
        self.sent.append(message)


def start(*headers: tuple[bytes, bytes]) -> Message:
    return {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"text/event-stream"), *headers],
    }


def body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


@pytest.mark.parametrize("reads", [True, False])
async def test_c3_an_application_that_never_asks_is_told_of_by_us(bank: Meter, *, reads: bool) -> None:
    """Plain ASGI that streams to the end, whoever is there: Django's and Flask's bridges, generators of one's own."""
    server = Server({"type": "http.request", "body": b"", "more_body": False})

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        if reads:
            assert (await receive())["type"] == "http.request"
        await send(start())
        await send(body(SILENT, more=True))
        server.leave()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await send(body(SILENT, more=True))
        await send(body(b"", more=False))

    await CreditDeductionMiddleware(app, bank)(SCOPE, server.receive, server.send)

    assert await balance(bank) == (900, 0)
    assert len(server.sent) == 4


async def test_what_the_application_reads_is_what_the_server_gave(bank: Meter) -> None:
    first: Message = {"type": "http.request", "body": b"a", "more_body": True}
    last: Message = {"type": "http.request", "body": b"b", "more_body": False}
    server = Server(first, last)
    read: list[Message] = []

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        read.extend([await receive(), await receive()])
        server.leave()
        read.extend([await receive(), await receive()])

    scope = {**SCOPE, "method": "POST", "headers": [*SCOPE["headers"], (b"content-length", b"2")]}
    await CreditDeductionMiddleware(app, bank)(scope, server.receive, server.send)

    assert read == [first, last, DISCONNECT, DISCONNECT]
    assert await balance(bank) == (900, 0)


async def test_a_fault_of_the_server_is_the_readers(bank: Meter) -> None:
    async def receive() -> Message:
        raise RuntimeError("the server failed")

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()

    with pytest.raises(RuntimeError, match="the server failed"):
        await CreditDeductionMiddleware(app, bank)(SCOPE, receive, Server().send)
    assert await balance(bank) == (1000, 0)
