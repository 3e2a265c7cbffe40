"""On a real server: streams, clients that leave, cancelled requests, other middleware, the mounted API, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from decimal import Decimal

import pytest
from fakeredis import FakeServer
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meter import Meter, Refusal
from meter.middleware import CreditDeductionMiddleware
from meter.testing import fake_meter
from tests.middleware.shop import Shop
from tests.proxy.proxied import balance
from tests.proxy.serving import connected, fetch, request, served, server_of, until, until_it

FIRST = b'data: {"total_token": 3}\n\n'
LAST = b'data: {"total_token": 9}\n\n'
SILENT = b'data: {"text": "hi"}\n\n'


async def settles_at(bank: Meter, available: object) -> None:
    async def is_settled() -> bool:
        return (await balance(bank))[1] == 0

    await until_it(is_settled, "the hold is settled")
    assert (await balance(bank))[0] == Decimal(str(available))


def metered(app: ASGIApp, bank: Meter, **options: object) -> ASGIApp:
    return CreditDeductionMiddleware(app, bank, **options)  # type: ignore[arg-type]


async def test_a_stream_reaches_the_client_piece_by_piece(bank: Meter) -> None:
    shop = Shop(pieces=[FIRST, LAST])
    async with served(server_of(metered(shop.app, bank))) as port, connected(port) as client:
        await client.send(request("GET", "/api/stream"))
        status, headers = await client.head()
        assert (status, dict(headers)["content-type"]) == (200, "text/event-stream; charset=utf-8")
        assert await client.chunk() == FIRST
        assert (await balance(bank))[1] == 100
        shop.go_on.set()
        assert await client.chunk() == LAST
        assert await client.chunk() == b""
        assert "x-credits-deducted" not in dict(headers)
        await settles_at(bank, 991)


@pytest.mark.parametrize(
    ("piece", "options", "left"),
    [
        (FIRST, {}, 997),
        (SILENT, {}, 900),
        (SILENT, {"on_disconnect": "release"}, 1000),
        (SILENT, {"on_disconnect": "reserved", "default_estimated_tokens": 7}, 993),
    ],
)
async def test_a_client_that_leaves_is_charged_what_was_told_or_the_estimate(
    bank: Meter, piece: bytes, options: dict[str, object], left: int
) -> None:
    shop = Shop(pieces=[piece, LAST])
    async with served(server_of(metered(shop.app, bank, **options))) as port:
        async with connected(port) as client:
            await client.send(request("GET", "/api/stream"))
            await client.head()
            await client.chunk()
        await settles_at(bank, left)


async def test_a_client_that_leaves_before_its_request_was_whole_pays_nothing(bank: Meter) -> None:
    shop = Shop()

    async def read_all(body: Request) -> Response:
        await body.body()
        return Response()

    shop.answer = read_all  # type: ignore[method-assign, assignment]
    async with served(server_of(metered(shop.app, bank))) as port:
        async with connected(port) as client:
            await client.send(request("POST", "/api/chat", "Content-Length: 10", body=b"half", length=False))
            await until_it(lambda: _is_held(bank), "the hold is there")
            client.leave()
        await settles_at(bank, 1000)


async def _is_held(bank: Meter) -> bool:
    return (await balance(bank))[1] > 0


async def test_a_stream_that_breaks_off_costs_what_was_told(bank: Meter) -> None:
    shop = Shop(pieces=[FIRST], error=RuntimeError("boom"))
    async with served(server_of(metered(shop.app, bank))) as port:
        answer = await fetch(port, request("GET", "/api/stream"))
        await settles_at(bank, 997)

    assert (answer.status, answer.body, answer.whole) == (200, FIRST, False)


async def test_a_stream_that_breaks_off_untold_costs_nothing(bank: Meter) -> None:
    shop = Shop(pieces=[SILENT], error=RuntimeError("boom"))
    async with served(server_of(metered(shop.app, bank))) as port:
        await fetch(port, request("GET", "/api/stream"))
        await settles_at(bank, 1000)


@pytest.mark.parametrize(("piece", "left"), [(FIRST, 997), (SILENT, 900)])
async def test_a_request_that_is_cancelled_is_settled_all_the_same(bank: Meter, piece: bytes, left: int) -> None:
    shop = Shop(pieces=[piece, LAST])
    tasks: list[asyncio.Task[None]] = []

    async def cancellable(scope: Scope, receive: Receive, send: Send) -> None:
        async def serve() -> None:
            await metered(shop.app, bank)(scope, receive, send)

        task = asyncio.get_running_loop().create_task(serve())
        tasks.append(task)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async with served(server_of(cancellable, lifespan="off")) as port, connected(port) as client:
        await client.send(request("GET", "/api/stream"))
        await client.head()
        await client.chunk()
        tasks[0].cancel()
        await settles_at(bank, left)


async def test_a_server_that_says_so_when_the_client_left_is_heard(bank: Meter) -> None:
    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        if message.get("body"):
            raise OSError("the client left")

    shop = Shop(pieces=[SILENT, LAST])
    scope: Scope = {"type": "http", "method": "GET", "path": "/api/stream", "headers": [(b"x-user-id", b"user-1")]}
    with pytest.raises(ClientDisconnect):
        await metered(shop.app, bank)({**scope, "asgi": {"spec_version": "2.4"}, "query_string": b""}, receive, send)

    assert await balance(bank) == (900, 0)


class _Outer(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        return await call_next(request)


Wrapper = Callable[[ASGIApp], ASGIApp]


@pytest.mark.parametrize(
    ("inside", "outside", "deducted"),
    [
        ((), (_Outer, GZipMiddleware), "42"),
        ((GZipMiddleware,), (_Outer,), "42"),
        ((_Outer,), (GZipMiddleware,), "42"),
        ((_Outer, GZipMiddleware), (), None),  # a stream by then, whose length nobody knows
    ],
)
async def test_it_works_with_middleware_that_wraps_responses(
    bank: Meter, inside: tuple[Wrapper, ...], outside: tuple[Wrapper, ...], deducted: str | None
) -> None:
    app = Shop(json={"total_token": 42, "text": "x" * 600}).app
    for wrapper in inside:
        app.add_middleware(wrapper)
    app.add_middleware(CreditDeductionMiddleware, credit_service=bank)
    for wrapper in outside:
        app.add_middleware(wrapper)
    async with served(server_of(app)) as port:
        answer = await fetch(port, request("GET", "/api/chat", "Accept-Encoding: gzip"))
        await settles_at(bank, 958)

    assert answer.one("x-credits-deducted") == deducted
    assert answer.one("content-encoding") == "gzip"


@pytest.mark.parametrize("piece", [FIRST, SILENT])
async def test_leaving_through_base_http_middleware_is_settled(bank: Meter, piece: bytes) -> None:
    shop = Shop(pieces=[piece, LAST])
    app = shop.app
    app.add_middleware(CreditDeductionMiddleware, credit_service=bank)
    app.add_middleware(_Outer)
    async with served(server_of(app)) as port:
        async with connected(port) as client:
            await client.send(request("GET", "/api/stream"))
            await client.head()
            await client.chunk()
        await settles_at(bank, 997 if piece is FIRST else 900)


async def test_middleware_and_mounted_api_share_one_balance(meter_server: FakeServer) -> None:
    meter = fake_meter(meter_server)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with meter:
            yield

    app = FastAPI(lifespan=lifespan)
    app.mount("/credits", meter.api)
    app.add_middleware(CreditDeductionMiddleware, credit_service=meter)

    @app.get("/api/chat")
    async def chat() -> dict[str, object]:
        return {"message": "hi", "total_token": 42}

    async with served(server_of(app, lifespan="on")) as port:
        added = b'{"user_id":"user-1","amount":100}'
        assert (
            await fetch(port, request("POST", "/credits/add", "Content-Type: application/json", body=added))
        ).status == 200
        answer = await fetch(port, request("GET", "/api/chat"))
        left = await fetch(port, request("GET", "/credits/balance/user-1"))

    assert answer.one("x-credits-deducted") == "42"
    assert b'"credits":58,"balance":58,"reserved":0' in left.body


async def test_what_is_under_way_is_settled_before_the_application_shuts_down(meter_server: FakeServer) -> None:
    shop = Shop(pieces=[SILENT, LAST])
    meter = fake_meter(meter_server)
    left: list[object] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with meter:
            await meter.add("user-1", 1000)
            yield
            left.append(await balance(meter))

    app = Starlette(routes=shop.app.routes, lifespan=lifespan)
    app.add_middleware(CreditDeductionMiddleware, credit_service=meter)
    server = server_of(app, lifespan="on")
    async with served(server) as port, connected(port) as client:
        await client.send(request("GET", "/api/stream"))
        await client.head()
        await client.chunk()
        stopping = asyncio.get_running_loop().create_task(server.shutdown())
        await until(lambda: not server.servers[0].sockets, "the server stops listening")
        shop.go_on.set()
        assert await client.chunk() == LAST
        await stopping

    assert left == [(991, 0)]


async def test_a_balance_of_the_user_is_not_touched_by_another(bank: Meter) -> None:
    await bank.add("user-2", 50)
    async with served(server_of(metered(Shop().app, bank))) as port:
        assert (await fetch(port, request("GET", "/api/chat", user="user-2"))).status == 402
        assert (await fetch(port, request("GET", "/api/chat", "X-Estimated-Tokens: 50", user="user-2"))).status == 200
        await settles_at(bank, 1000)

    found = await bank.balance("user-2")
    assert not isinstance(found, Refusal) and found.available == 8
