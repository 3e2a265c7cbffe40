"""C13: a browser on another origin reads a refusal, in whichever order CORS and metering were added."""

from __future__ import annotations

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware

from meter import CreditDeductionMiddleware, Credits, Meter
from tests.middleware.shop import Shop
from tests.middleware.test_refusals import Away

ORIGIN = "https://shop.example"
CORS = {"allow_origins": [ORIGIN], "allow_headers": ["X-User-Id"], "expose_headers": ["X-Credits-Deducted"]}


def crossed(app: Starlette, bank: Credits, order: str) -> Starlette:
    """The application with both; what is added last is outermost."""
    for word in order.split():
        if word == "cors":
            app.add_middleware(CORSMiddleware, **CORS)  # type: ignore[arg-type]
        elif word == "gzip":
            app.add_middleware(GZipMiddleware)
        else:
            app.add_middleware(CreditDeductionMiddleware, credit_service=bank)
    return app


def client_of(app: object) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app)  # type: ignore[arg-type]
    return httpx2.AsyncClient(transport=transport, base_url="http://shop", headers={"Origin": ORIGIN})


@pytest.mark.parametrize("order", ["cors meter", "meter cors", "cors gzip meter", "gzip cors gzip meter"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [({}, 401), ({"X-User-Id": "a b"}, 400), ({"X-User-Id": "poor"}, 402), ({"X-User-Id": "user-1"}, 200)],
)
async def test_c13_every_answer_has_the_cors_headers(
    bank: Meter, order: str, headers: dict[str, str], status: int
) -> None:
    async with client_of(crossed(Shop().app, bank, order)) as client:
        answer = await client.get("/api/chat", headers=headers)

    assert answer.status_code == status
    assert answer.headers.get_list("access-control-allow-origin") == [ORIGIN]
    assert answer.headers["access-control-expose-headers"] == "X-Credits-Deducted"


@pytest.mark.parametrize("order", ["cors meter", "meter cors"])
async def test_c13_in_fastapi_too(order: str) -> None:
    async with client_of(crossed(FastAPI(), Credits(Away()), order)) as client:
        answer = await client.get("/api/chat", headers={"X-User-Id": "user-1"})
        foreign = await client.get("/api/chat", headers={"X-User-Id": "user-1", "Origin": "https://evil.example"})

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-origin" not in foreign.headers


async def test_c13_around_a_whole_application(bank: Meter) -> None:
    inner = crossed(Shop().app, bank, "cors")
    async with client_of(CreditDeductionMiddleware(inner, bank)) as client:
        assert (await client.options("/api/chat", headers={"Access-Control-Request-Method": "GET"})).status_code == 200
        refusal = await client.head("/api/chat")

    assert (refusal.status_code, refusal.content) == (401, b"")
    assert refusal.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize("order", ["cors meter", "meter cors"])
async def test_c13_a_preflight_needs_no_identity(bank: Meter, order: str) -> None:
    asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "X-User-Id"}
    async with client_of(crossed(Shop().app, bank, order)) as client:
        answer = await client.options("/api/chat", headers=asked)

    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)


async def test_without_cors_nothing_is_added(bank: Meter) -> None:
    async with client_of(crossed(Shop().app, bank, "gzip meter")) as client:
        assert not [name for name in (await client.get("/api/chat")).headers if name.startswith("access-control")]
