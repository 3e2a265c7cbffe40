"""What the client gets: the application's response, and the header that tells what was deducted."""

from __future__ import annotations

import asyncio

import pytest
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from meter import Meter
from meter.middleware import HELD_BYTES_MAX, CreditDeductionMiddleware
from tests.middleware.shop import Shop, calling
from tests.proxy.proxied import balance

SCOPE: Scope = {"type": "http", "method": "GET", "path": "/api/x", "headers": [(b"x-user-id", b"user-1")]}
JSON = (b"content-type", b"application/json")


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Message:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def sent(bank: Meter, *messages: Message) -> list[Message]:
    """What the server gets from an application that sends these; after each of them, how many came."""
    got: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
            got.append({"type": "test.mark"})

    async def receive() -> Message:
        raise AssertionError("nobody reads the request")

    async def send(message: Message) -> None:
        got.append(message)

    await CreditDeductionMiddleware(app, bank)(dict(SCOPE), receive, send)
    return got


def marks(got: list[Message]) -> str:
    """s: start, b: body, |: the application sent one more message."""
    letters = {"http.response.start": "s", "http.response.body": "b", "test.mark": "|"}
    return "".join(letters.get(message["type"], "?") for message in got)


async def test_json_in_one_piece_waits_for_its_commit(bank: Meter) -> None:
    got = await sent(bank, start(JSON), body(b'{"total_token":5}'))

    assert marks(got) == "|sb|"
    assert got[1]["headers"] == [JSON, (b"x-credits-deducted", b"5")]
    assert await balance(bank) == (995, 0)


async def test_json_with_a_length_waits_until_it_is_whole(bank: Meter) -> None:
    got = await sent(
        bank,
        start(JSON, (b"content-length", b"17")),
        body(b'{"total', more=True),
        body(b'_token":5}', more=True),
        body(b""),
    )

    assert marks(got) == "|||sbbb|"
    assert (b"x-credits-deducted", b"5") in got[3]["headers"]
    assert b"".join(message.get("body", b"") for message in got) == b'{"total_token":5}'


async def test_json_without_a_length_that_streams_does_not_wait(bank: Meter) -> None:
    got = await sent(bank, start(JSON), body(b'{"total', more=True), body(b'_token":5}'))

    assert marks(got) == "|sb|b|"
    assert got[1]["headers"] == [JSON]
    assert await balance(bank) == (995, 0)


@pytest.mark.parametrize("announced", [True, False])
async def test_json_that_is_large_does_not_wait(bank: Meter, announced: bool) -> None:
    size = HELD_BYTES_MAX + 1 if announced else 10
    large = b'{"x":"' + b"x" * HELD_BYTES_MAX + b'",'
    got = await sent(
        bank, start(JSON, (b"content-length", b"%d" % size)), body(large, more=True), body(b'"total_token":5}')
    )

    assert marks(got) == "|sb|b|"
    assert await balance(bank) == (995, 0)


async def test_a_stream_is_never_held_back(bank: Meter) -> None:
    got = await sent(
        bank,
        start((b"content-type", b"text/event-stream")),
        body(b'data: {"total_token":1}\n\n', more=True),
        body(b'data: {"total_token":5}\n\n', more=True),
        body(b""),
    )

    assert marks(got) == "s|b|b|b|"
    assert await balance(bank) == (995, 0)


async def test_a_response_that_does_not_count_is_not_held_back(bank: Meter) -> None:
    assert marks(await sent(bank, start(JSON, status=500), body(b'{"total_token":5}'))) == "s|b|"
    assert await balance(bank) == (1000, 0)


async def test_an_application_that_stops_in_the_middle_sends_what_it_sent(bank: Meter) -> None:
    got = await sent(bank, start(JSON, (b"content-length", b"17")), body(b'{"total', more=True))

    assert marks(got) == "||sb"
    assert await balance(bank) == (1000, 0)


async def test_messages_of_extensions_pass(bank: Meter) -> None:
    trailers: Message = {"type": "http.response.trailers", "headers": []}
    got = await sent(bank, start(JSON), body(b'{"total_token":5}'), trailers)
    assert marks(got) == "|sb|?|"

    got = await sent(bank, start(JSON), {"type": "http.response.pathsend", "path": "/x"})
    assert marks(got) == "|s?|"
    assert await balance(bank) == (995, 0)


async def test_repeated_headers_stay_repeated(bank: Meter) -> None:
    cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    got = await sent(bank, start(JSON, *cookies), body(b'{"total_token":5}'))

    assert got[1]["headers"] == [JSON, *cookies, (b"x-credits-deducted", b"5")]


async def test_problem_json_and_parameters_are_json_too(bank: Meter) -> None:
    got = await sent(
        bank, start((b"Content-Type", b"Application/Problem+JSON; charset=utf-8")), body(b'{"total_token":5}')
    )

    assert (b"x-credits-deducted", b"5") in got[1]["headers"]


async def test_a_commit_that_takes_too_long_is_not_waited_for(bank: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meter.middleware.SETTLE_SECONDS_MAX", 0.0)
    got = await sent(bank, start(JSON), body(b'{"total_token":5}'))

    assert got[1]["headers"] == [JSON]
    while (await balance(bank))[1]:
        await asyncio.sleep(0)
    assert await balance(bank) == (995, 0)


async def test_the_body_reaches_the_client_byte_for_byte(bank: Meter) -> None:
    odd = b'\xef\xbb\xbf {"total_token" : 5 , "x":"\xff\\u0000"}  '
    async with calling(Shop(pieces=[odd], media_type="application/json"), bank) as client:
        answer = await client.get("/api/raw")

    assert answer.content == odd
    assert answer.headers["x-credits-deducted"] == "5"


@pytest.mark.parametrize("kind", ["websocket", "lifespan", "other"])
async def test_everything_but_http_passes_untouched(bank: Meter, kind: str) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        assert (await receive())["type"] == "first"
        await send({"type": "second"})

    async def receive() -> Message:
        return {"type": "first"}

    got: list[Message] = []

    async def send(message: Message) -> None:
        got.append(message)

    scope: Scope = {"type": kind, "path": "/api/ws", "headers": []}
    await CreditDeductionMiddleware(app, bank)(scope, receive, send)

    assert seen[0] is scope
    assert got == [{"type": "second"}]


async def test_it_is_added_like_any_middleware(bank: Meter) -> None:
    app: Starlette = Shop().app
    app.add_middleware(
        CreditDeductionMiddleware,
        credit_service=bank,
        path_prefix="/api",
        user_id_header="X-User-Id",
        estimated_tokens_header="X-Estimated-Tokens",
        default_estimated_tokens=100,
        response_usage_key="total_token",
        skip_paths=("/api/health",),
    )
    got: list[Message] = []

    async def send(message: Message) -> None:
        got.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    await app({**SCOPE, "path": "/api/chat", "query_string": b"", "root_path": ""}, receive, send)

    assert (b"x-credits-deducted", b"42") in got[0]["headers"]
