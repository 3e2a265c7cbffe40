"""What a response of an application costs by a rate card."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from meter import Meter
from meter.charging.priced import ChargeBy
from meter.middleware import CreditDeductionMiddleware
from meter.usage import Format

TOLD = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}
PRICE = Decimal("0.000138")  # 19 * 2 + 10 * 10


def shop(bank: Meter, **options: Any) -> Starlette:
    """An application that answers as OpenAI does, by the model that it is asked for."""

    async def chat(request: Request) -> JSONResponse:
        asked = await request.json()
        return JSONResponse({"model": f"{asked['model']}-2024-08-06", "usage": TOLD, "total_token": 3})

    async def stream(request: Request) -> StreamingResponse:
        await request.body()
        parts = [
            'data: {"model":"gpt-4o","choices":[]}\n\n',
            'data: {"usage":{"prompt_tokens":19,"completion_tokens":10}}\n\n',
        ]
        return StreamingResponse(iter(parts), media_type="text/event-stream")

    app = Starlette(routes=[Route("/api/chat", chat, methods=["POST"]), Route("/api/stream", stream, methods=["POST"])])
    app.add_middleware(
        CreditDeductionMiddleware, credit_service=bank, **{"usage_format": Format.OPENAI_CHAT, **options}
    )
    return app


async def post(app: Starlette, path: str = "/api/chat", user: str = "u", **asked: object) -> httpx2.Response:
    """The answer to a request of a user."""
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://shop") as http:
        return await http.post(path, json={"model": "gpt-4o", **asked}, headers={"X-User-Id": user})


@pytest.mark.parametrize("path", ["/api/chat", "/api/stream"])
async def test_usage_costs_what_the_card_says(meter: Meter, path: str) -> None:
    """Whole and as a stream; an unknown model is refused before the application runs."""
    await meter.add("u", 5)
    assert await meter.put_rate_card("default", {"gpt-4o": {"input": 2, "output": 10}})
    answer = await post(shop(meter), path, max_tokens=50)
    assert answer.status_code == 200
    assert path == "/api/stream" or Decimal(answer.headers["x-credits-deducted"]) == PRICE
    left = await meter.balance("u")
    assert (left.available, left.reserved) == (5 - PRICE, 0)  # type: ignore[union-attr]
    assert (await post(shop(meter), path, model="nope")).status_code == 422


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"charge_by": ChargeBy.AMOUNT}, 971),
        ({"usage_format": Format.KEY, "response_usage_key": "total_token"}, 997),
        ({"charge_by": "card"}, 1000 - PRICE),
    ],
)
async def test_the_owner_says_whether_a_card_prices(meter: Meter, options: dict[str, Any], left: Decimal) -> None:
    await meter.add("u", 1000)
    assert await meter.put_rate_card("default", {"gpt-4o": {"input": 2, "output": 10}})
    assert (await post(shop(meter, **options))).status_code == 200
    assert (await meter.balance("u")).available == left  # type: ignore[union-attr]


async def test_without_a_card_tokens_are_charged_as_before(meter: Meter) -> None:
    await meter.add("u", 100)
    assert (await post(shop(meter))).status_code == 200
    assert (await meter.balance("u")).available == 71  # type: ignore[union-attr]
    assert (await post(shop(meter, charge_by="card"))).status_code == 422
