"""What a metered request costs."""

from __future__ import annotations

import asyncio
import gzip
from decimal import Decimal

import orjson
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from meter import Meter, Refusal
from meter.contract.answers import TransactionPage
from meter.usage import Format
from tests.middleware.shop import Shop, calling
from tests.proxy.proxied import balance

OPENAI = {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
ANTHROPIC = {"usage": {"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": 2}}


async def test_the_usage_is_charged_and_the_hold_is_gone(bank: Meter) -> None:
    async with calling(Shop(), bank) as client:
        answer = await client.post("/api/chat", json={"message": "hi"})

    assert answer.json() == {"message": "hi", "total_token": 42}
    assert answer.headers["x-credits-deducted"] == "42"
    assert await balance(bank) == (958, 0)


async def test_the_estimate_is_held_while_the_handler_runs(bank: Meter) -> None:
    shop = Shop()
    async with calling(shop, bank) as client:
        await client.get("/api/chat", headers={"X-Estimated-Tokens": "250"})
        assert shop.reserved == 250
        await client.get("/api/chat")
        assert shop.reserved == 100


@pytest.mark.parametrize(
    ("options", "body", "charged"),
    [
        ({"response_usage_key": "usage.total_tokens"}, OPENAI, 15),
        ({"usage_format": "openai-chat"}, OPENAI, 15),
        ({"usage_format": Format.ANTHROPIC}, ANTHROPIC, 12),
        ({"usage_format": "auto"}, ANTHROPIC, 12),
        ({"usage_format": "auto"}, {"total_token": 4}, 4),
        ({"usage_format": "openai-responses"}, {"usage": {"input_tokens": 1, "output_tokens": 2}}, 3),
        ({}, {"total_token": 0.5}, Decimal("0.5")),
    ],
)
async def test_usage_is_found_where_the_options_say(
    bank: Meter, options: dict[str, object], body: object, charged: object
) -> None:
    async with calling(Shop(json=body), bank, **options) as client:
        answer = await client.get("/api/chat")

    assert Decimal(answer.headers["x-credits-deducted"]) == charged
    assert await balance(bank) == (1000 - Decimal(str(charged)), 0)


@pytest.mark.parametrize("body", [{}, {"total_token": None}, {"total_token": "x"}, {"total_token": -1}, [1], "x", None])
async def test_a_response_without_usage_costs_nothing(bank: Meter, body: object) -> None:
    async with calling(Shop(json=body), bank) as client:
        answer = await client.get("/api/chat")

    assert (answer.status_code, answer.json()) == (200, body)
    assert "x-credits-deducted" not in answer.headers
    assert await balance(bank) == (1000, 0)


async def test_a_response_without_usage_costs_the_estimate_if_that_is_wanted(bank: Meter) -> None:
    async with calling(Shop(json={}), bank, on_missing_usage="estimate") as client:
        answer = await client.get("/api/chat", headers={"X-Estimated-Tokens": "30"})

    assert answer.headers["x-credits-deducted"] == "30"
    assert await balance(bank) == (970, 0)


async def test_a_usage_of_zero_costs_nothing_and_says_nothing(bank: Meter) -> None:
    async with calling(Shop(json={"total_token": 0}), bank, on_missing_usage="estimate") as client:
        answer = await client.get("/api/chat")

    assert "x-credits-deducted" not in answer.headers
    assert await balance(bank) == (1000, 0)


@pytest.mark.parametrize("status", [400, 404, 422, 500, 503, 302])
async def test_a_failed_request_costs_nothing_even_if_it_tells_usage(bank: Meter, status: int) -> None:
    async with calling(Shop(status=status), bank) as client:
        answer = await client.get("/api/chat")

    assert (answer.status_code, answer.json()["total_token"]) == (status, 42)
    assert "x-credits-deducted" not in answer.headers
    assert await balance(bank) == (1000, 0)


async def test_which_statuses_count_can_be_said(bank: Meter) -> None:
    async with calling(Shop(status=404), bank, charge_statuses={404}) as client:
        assert (await client.get("/api/chat")).headers["x-credits-deducted"] == "42"
    async with calling(Shop(status=200), bank, charge_statuses={404}) as client:
        assert "x-credits-deducted" not in (await client.get("/api/chat")).headers


async def test_an_exception_costs_nothing_and_stays_an_exception(bank: Meter) -> None:
    async with calling(Shop(error=RuntimeError("boom")), bank) as client:
        answer = await client.get("/api/chat")

    assert answer.status_code == 500
    assert await balance(bank) == (1000, 0)


async def test_usage_above_the_hold_is_charged_as_far_as_credits_go(bank: Meter) -> None:
    async with calling(Shop(json={"total_token": 5000}), bank) as client:
        answer = await client.get("/api/chat")

    assert answer.headers["x-credits-deducted"] == "1000"
    assert await balance(bank) == (0, 0)


async def test_usage_above_the_hold_goes_into_the_overdraft_if_that_is_wanted(bank: Meter) -> None:
    await bank.configure("user-1", overdraft_limit=500)
    async with calling(Shop(json={"total_token": 1200}), bank, over="overdraft") as client:
        answer = await client.get("/api/chat")

    assert answer.headers["x-credits-deducted"] == "1200"
    found = await bank.balance("user-1")
    assert not isinstance(found, Refusal) and found.debt == 200


async def test_p20_usage_above_the_hold_costs_no_more_than_the_hold_if_that_is_wanted(bank: Meter) -> None:
    async with calling(Shop(json={"total_token": 1200}), bank, over="hold_only") as client:
        answer = await client.get("/api/chat")

    assert answer.headers["x-credits-deducted"] == "100"
    assert await balance(bank) == (900, 0)


async def test_no_rival_takes_the_credits_between_hold_and_charge(bank: Meter) -> None:
    """B11: the seed freed the hold first, and charged afterwards what somebody else had spent meanwhile."""

    async def spend_everything_free(_: Request) -> Response:
        free, held = await balance(bank)
        assert held == 100
        assert await bank.deduct("user-1", free)
        return JSONResponse({"total_token": 100})

    shop = Shop()
    shop.answer = spend_everything_free  # type: ignore[method-assign, assignment]
    async with calling(shop, bank) as client:
        answer = await client.get("/api/chat")

    assert answer.headers["x-credits-deducted"] == "100"
    assert await balance(bank) == (0, 0)


async def test_many_at_once_hold_no_more_than_there_is(bank: Meter) -> None:
    shop = Shop(json={"total_token": 100})
    async with calling(shop, bank) as client:
        answers = await asyncio.gather(*(client.get("/api/chat") for _ in range(40)))

    served = [answer for answer in answers if answer.status_code == 200]
    assert shop.calls == len(served) == 10
    assert {answer.status_code for answer in answers} == {200, 402}
    assert await balance(bank) == (0, 0)


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT"])
async def test_every_method_is_metered_but_options(bank: Meter, method: str) -> None:
    async with calling(Shop(), bank) as client:
        await client.request(method, "/api/chat")

    assert await balance(bank) == (958, 0)


async def test_a_cors_preflight_is_free_and_needs_no_identity(bank: Meter) -> None:
    shop = Shop()
    async with calling(shop, bank) as client:
        del client.headers["x-user-id"]
        answer = await client.options(
            "/api/chat", headers={"Origin": "https://a", "Access-Control-Request-Method": "POST"}
        )

    assert (answer.status_code, shop.calls) == (200, 1)
    assert await balance(bank) == (1000, 0)


async def test_gzip_is_read_through(bank: Meter) -> None:
    packed = gzip.compress(orjson.dumps({"total_token": 42}))
    shop = Shop(pieces=[packed], media_type="application/json", headers={"Content-Encoding": "gzip"})
    async with calling(shop, bank) as client, client.stream("GET", "/api/raw") as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])

    assert raw == packed
    assert answer.headers["x-credits-deducted"] == "42"
    assert await balance(bank) == (958, 0)


async def test_usage_that_is_encoded_beyond_reading_is_missing(bank: Meter, caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop(pieces=[b"\x00"], media_type="application/json", headers={"Content-Encoding": "zstd"})
    async with calling(shop, bank) as client, client.stream("GET", "/api/raw"):
        pass

    assert "no usage was read: coding" in caplog.text
    assert await balance(bank) == (1000, 0)


async def test_p19_the_rows_of_a_charge_carry_the_request_id(bank: Meter) -> None:
    shop = Shop()
    async with calling(shop, bank) as client:
        assert (await client.get("/api/chat", headers={"X-Request-Id": "req-1"})).status_code == 200
        shop.status = 500
        assert (await client.get("/api/chat", headers={"X-Request-Id": "req-2"})).status_code == 500
    for request_id, kinds in (("req-1", ["commit", "reserve"]), ("req-2", ["release", "reserve"])):
        page = await bank.history("user-1", reference=request_id)
        assert isinstance(page, TransactionPage)
        assert [row.kind for row in page.items] == kinds
        assert {row.reference for row in page.items} == {request_id}


async def test_u5_a_refusal_tells_the_id_of_its_request(bank: Meter) -> None:
    async with calling(Shop(), bank) as client:
        refused = await client.get("/api/chat", headers={"X-Request-Id": "req-2", "X-User-Id": "stranger"})
    assert (refused.status_code, refused.headers["x-request-id"], refused.json()["request_id"]) == (
        402,
        "req-2",
        "req-2",
    )
