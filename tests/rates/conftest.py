"""A sidecar with a store: plain ASGI on fakeredis, and uvicorn with the hot lane on the real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from meter.app import create_app
from meter.config import load_settings
from meter.testing import app_in_step
from tests.api.sidecar import Api, serving
from tests.servers import fake_server, real_server

CARD: dict[str, dict[str, Any]] = {
    "gpt-4o": {"input": 2.5, "cache_read": 1.25, "output": 10, "max_output": 16384, "aliases": ["gpt-4o-2024-08-06"]},
    "mini": {"input": 0.15, "output": 0.6},
    "claude": {"input": 3, "cache_read": 0.3, "cache_write": 3.75, "output": 15},
    "gem": {"input": 1.25, "output": 10, "above_input": {"over": 200000, "rates": {"input": 2.5, "output": 15}}},
    "gift": {"free": True},
}
DEAR = {**CARD, "gpt-4o": {**CARD["gpt-4o"], "output": 20}}


class Shop(Api):
    """A sidecar, and what one asks of it about prices."""

    def put(self, models: object = CARD, card: str = "default", *, key: str | None = None, **members: object) -> object:
        """A version of a card."""
        body = {"models": models, **members}
        return self._ok(200, self.call("PUT", f"/credits/rate-cards/{card}", body, key=key))

    def add(self, user_id: str, amount: float) -> None:
        self.post("/add", {"user_id": user_id, "amount": amount})


@pytest.fixture(params=["asgi", "lane"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """2030-01-01 12:00, u has 5 credits, and the card is there."""
    if request.param == "asgi":
        server = fake_server()
        with TestClient(app_in_step(server.fake, store_url="memory://", partitions=1)) as http:
            yield opened(Shop(http, server.client))
    else:
        url: str = request.getfixturevalue("redis_url")
        real = real_server(url)
        settings = load_settings(
            redis_url=url, store_url=f"sqlite:///{tmp_path}/m.db", test_clock=True, redis_timeout_ms=10_000
        )
        with serving(create_app(settings)) as base, httpx2.Client(base_url=base) as http:
            yield opened(Shop(http, real.client))


def opened(shop: Shop) -> Shop:
    shop.call("PUT", "/test-clock", {"now": "2030-01-01T12:00:00Z"})
    shop.put()
    shop.add("u", 5)
    return shop
