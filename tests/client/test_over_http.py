"""`MeterClient` beyond the calls: servers that are gone, slow, or no sidecar at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route

from meter import MeterClient
from meter.contract import answers
from meter.errors import Unavailable
from meter.testing import fake_app
from tests.api.sidecar import serving
from tests.e2e.processes import free_port


@asynccontextmanager
async def client_of(answer: Response | None) -> AsyncIterator[MeterClient]:
    """A client of a server that gives one answer to everything, or none."""

    async def endpoint(request: Request) -> Response:
        while answer is None and not await request.is_disconnected():
            await asyncio.sleep(0.01)
        return answer or Response()

    app = Starlette(routes=[Route("/{path:path}", endpoint, methods=["GET", "POST"])])
    app.state.hot_lane = fake_app().state.hot_lane
    with serving(app) as url:
        async with MeterClient(url, timeout_seconds=0.2 if answer is None else 5.0) as client:
            yield client


async def test_a_server_that_is_gone_is_unavailable() -> None:
    async with MeterClient(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1") as raised:
            await client.deduct("u", 1)
    assert raised.value.reason == "http"


async def test_a_server_that_goes_away_is_unavailable_and_found_again() -> None:
    with serving(fake_app()) as url:
        client = MeterClient(url)
        assert await client.add("u", 1)
    with pytest.raises(Unavailable):
        await client.balance("u")
    with pytest.raises(Unavailable):
        async with client.reserve("u", 1):
            pytest.fail("the block ran")
    await client.__aexit__()


@pytest.mark.parametrize(
    "answer",
    [
        PlainTextResponse("Bad Gateway", 502),
        PlainTextResponse("<html>Not Found</html>", 404),
        PlainTextResponse("<html>It works</html>", 200),
        PlainTextResponse('{"hello":"world"}', 200, media_type="application/json"),
        PlainTextResponse('{"error":"unauthorized"}', 401, media_type="application/json"),
        PlainTextResponse("", 200),
        PlainTextResponse("[]", 200),
        PlainTextResponse(b"\xff", 200),
    ],
    ids=lambda answer: f"{answer.status_code}-{answer.body[:10]!r}",
)
async def test_what_is_no_answer_of_a_sidecar_is_unavailable(answer: Response) -> None:
    async with client_of(answer) as client:
        with pytest.raises(Unavailable, match=str(answer.status_code)):
            await client.balance("u")


async def test_a_problem_that_says_unavailable_is_raised_with_its_code() -> None:
    text = (
        '{"type":"/problems/metering-unavailable","title":"t","status":503,"detail":"d","code":"METERING_UNAVAILABLE"}'
    )
    async with client_of(PlainTextResponse(text, 503, media_type="application/problem+json")) as client:
        with pytest.raises(Unavailable, match="d") as raised:
            await client.balance("u")
    assert raised.value.reason == "METERING_UNAVAILABLE"


async def test_credits_that_are_durable_but_not_there_yet_are_told_apart() -> None:
    text = '{"user_id":"u","grant_id":"g","amount":9007199254.740991,"state":"pending"}'
    async with client_of(PlainTextResponse(text, 202, media_type="application/json")) as client:
        pending = await client.add("u", "9007199254.740991")
    assert isinstance(pending, answers.Pending) and pending
    assert str(pending.amount) == "9007199254.740991"


async def test_a_slow_server_is_unavailable_after_the_timeout() -> None:
    async with client_of(None) as client:
        with pytest.raises(Unavailable):
            await client.balance("u")


async def test_a_sidecar_below_a_path_and_a_slash_at_the_end_are_found() -> None:
    app = Starlette(routes=[Mount("/meter", fake_app())])
    app.state.hot_lane = fake_app().state.hot_lane
    with serving(app) as url:
        async with MeterClient(f"{url}/nowhere/") as client:
            with pytest.raises(Unavailable):
                await client.balance("u")
    with serving(fake_app()) as url:
        async with MeterClient(f"{url}/") as client:
            assert await client.balance("u")


async def test_an_unused_client_closes() -> None:
    async with MeterClient("http://127.0.0.1:1") as client:
        assert client is not None


async def test_calls_beyond_the_connections_wait_for_one() -> None:
    open_, most = 0, 0

    async def endpoint(_: Request) -> Response:
        nonlocal open_, most
        open_ += 1
        most = max(most, open_)
        await asyncio.sleep(0.01)
        open_ -= 1
        return JSONResponse({"user_id": "u", "credits": 1, "balance": 1, "reserved": 0, "available": 1, "debt": 0})

    app = Starlette(routes=[Route("/{path:path}", endpoint)])
    app.state.hot_lane = fake_app().state.hot_lane
    app.state.hot_lane.find = lambda *_: None
    with serving(app) as url:
        async with MeterClient(url, connections_max=3) as client:
            answers = await asyncio.gather(*(client.balance("u") for _ in range(12)))

    assert all(answers)
    assert most == 3
