"""Which requests are not served, and how they are told."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2
import pytest

import meter
from meter import Credits, Meter
from meter.errors import Unavailable
from meter.middleware import CreditDeductionMiddleware
from tests.middleware.shop import Shop, calling
from tests.proxy.proxied import balance


class Away:
    """Carries no call."""

    async def __call__(
        self,
        name: str,
        path: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes | None,
        key: str | None,
        actor: str = "",
    ) -> tuple[int, bytes, bool]:
        raise Unavailable("redis", "Redis is away")


def problem(answer: httpx2.Response) -> tuple[int, str]:
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["detail"] and body["title"] and body["status"] == answer.status_code
    assert "x-credits-deducted" not in answer.headers
    return answer.status_code, body["code"]


async def test_without_the_identity_header_it_is_401(bank: Meter) -> None:
    shop = Shop()
    async with calling(shop, bank) as client:
        del client.headers["x-user-id"]
        assert problem(await client.get("/api/chat")) == (401, "MISSING_IDENTITY")

    assert shop.calls == 0


async def test_without_the_credits_it_is_402_and_nothing_changes(bank: Meter) -> None:
    shop = Shop()
    async with calling(shop, bank) as client:
        answer = await client.get("/api/chat", headers={"X-Estimated-Tokens": "1000.000001"})

    assert problem(answer) == (402, "INSUFFICIENT_CREDITS")
    assert answer.json()["available"] == 1000
    assert shop.calls == 0
    assert await balance(bank) == (1000, 0)


async def test_a_user_nobody_heard_of_has_no_credits(bank: Meter) -> None:
    async with calling(Shop(), bank) as client:
        assert problem(await client.get("/api/chat", headers={"X-User-Id": "stranger"}))[0] == 402


async def test_an_empty_account_cannot_ask_for_an_empty_hold(bank: Meter) -> None:
    async with calling(Shop(), bank) as client:
        answer = await client.get("/api/chat", headers={"X-User-Id": "stranger", "X-Estimated-Tokens": "0"})

    assert problem(answer)[0] == 402


@pytest.mark.parametrize("estimate", ["-5", "many", "", "0.0000001", "9007199254740991"])
async def test_a_bad_estimate_is_400(bank: Meter, estimate: str) -> None:
    async with calling(Shop(), bank, minimum_estimated_tokens=0) as client:
        answer = await client.get("/api/chat", headers={"X-Estimated-Tokens": estimate})

    assert problem(answer) == (400, "INVALID_ESTIMATE")
    assert await balance(bank) == (1000, 0)


async def test_a_bad_identity_is_400(bank: Meter) -> None:
    async with calling(Shop(), bank) as client:
        assert problem(await client.get("/api/chat", headers={"X-User-Id": "a b"})) == (400, "INVALID_ID")


async def test_a_suspended_account_is_403(bank: Meter) -> None:
    await bank.configure("user-1", suspended=True)
    async with calling(Shop(), bank) as client:
        assert problem(await client.get("/api/chat")) == (403, "ACCOUNT_SUSPENDED")


async def test_when_nobody_can_say_it_is_503(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    async with calling(shop, Credits(Away())) as client:
        answer = await client.get("/api/chat")

    assert problem(answer) == (503, "METERING_UNAVAILABLE")
    assert answer.headers["retry-after"] == "1"
    assert shop.calls == 0


async def test_when_nobody_can_say_it_may_be_served_unmetered(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    async with calling(shop, Credits(Away()), fail_open=True) as client:
        answer = await client.get("/api/chat")

    assert (answer.status_code, answer.json()["total_token"]) == (200, 42)
    assert "x-credits-deducted" not in answer.headers
    assert 'served unmetered why="Redis is away"' in caplog.text


async def test_paths_elsewhere_are_not_metered(bank: Meter) -> None:
    async with calling(Shop(), bank, skip_paths=("/api/health",)) as client:
        del client.headers["x-user-id"]
        assert (await client.get("/public")).status_code == 200
        assert (await client.get("/api/health")).status_code == 200
        assert (await client.get("/api/health/../chat")).status_code == 401

    assert await balance(bank) == (1000, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"path_prefix": "api"},
        {"usage_format": "xml"},
        {"on_missing_usage": "forgive"},
        {"response_usage_key": "usage..total"},
    ],
)
async def test_an_option_that_cannot_be_is_refused_at_once(bank: Meter, options: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        CreditDeductionMiddleware(Shop().app, bank, **options)  # type: ignore[arg-type]


async def test_u14_the_middleware_is_importable_from_the_top_with_the_seeds_keywords(bank: Meter) -> None:
    middleware = meter.CreditDeductionMiddleware(
        Shop().app,
        credit_service=bank,
        path_prefix="/api",
        user_id_header="X-User-Id",
        estimated_tokens_header="X-Estimated-Tokens",
        default_estimated_tokens=100,
        response_usage_key="total_token",
        skip_paths=("/api/health",),
    )

    assert type(middleware) is CreditDeductionMiddleware
    assert "CreditDeductionMiddleware" in meter.__all__
