"""A sidecar with a store: plain ASGI on fakeredis, and uvicorn with the hot lane on the real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from starlette.testclient import TestClient

from meter.app import create_app
from meter.config import load_settings
from meter.testing import app_in_step
from tests.api.sidecar import Answer, Api, serving
from tests.servers import fake_server, real_server

NOON = "2030-01-01T12:00:00Z"
DAY10: dict[str, Any] = {"daily": {"limit": 10, "window": "day"}}


class Shop(Api):
    """A sidecar, and what one asks of it about rules."""

    def at(self, now: str) -> None:
        assert self.call("PUT", "/test-clock", {"now": now}).status == 200

    def add(self, user_id: str, amount: float) -> None:
        self.post("/add", {"user_id": user_id, "amount": amount})

    def set(self, user_id: str, **settings: object) -> Any:
        return self.patch(f"/users/{quote(user_id, safe='')}", settings)

    def budgets(self, user_id: str = "u", /, **budgets: Any) -> Any:
        return self.set(user_id, budgets=budgets)

    def user(self, user_id: str = "u") -> Any:
        return self.get(f"/users/{quote(user_id, safe='')}")

    def limits(self, user_id: str = "u", /, **limits: Any) -> Any:
        return self.set(user_id, rate_limits=limits)

    def budget(self, user_id: str = "u", name: str = "daily") -> Any:
        return self.user(user_id)["budgets"][name]

    def used(self, user_id: str = "u", name: str = "daily") -> tuple[Any, Any]:
        """What is used and reserved of a budget."""
        budget = self.budget(user_id, name)
        return budget["used"], budget["reserved"]

    def ask(self, path: str, **body: object) -> Answer:
        return self.call("POST", f"/credits{path}", body)

    def deduct(self, amount: object, user_id: str = "u", **members: object) -> Answer:
        return self.ask("/deduct", user_id=user_id, amount=amount, **members)

    def reserve(self, amount: object, user_id: str = "u", **members: object) -> str:
        return str(
            self.post("/reservations", {"user_id": user_id, "amount": amount, **members}, status=201)["reservation_id"]
        )

    def commit(self, hold: str, amount: object, **members: object) -> Answer:
        return self.ask(f"/reservations/{hold}/commit", amount=amount, **members)

    def release(self, hold: str) -> Answer:
        return self.ask(f"/reservations/{hold}/release")


def reached(answer: Answer) -> list[tuple[str, str]]:
    """The (user_id, id) of the budgets that refused, which nothing else did."""
    assert (answer.status, answer.body["type"]) == (402, "/problems/budget-reached"), answer.raw
    assert {one["rule"] for one in answer.body["violations"]} == {"budget"}
    return [(one["user_id"], one["id"]) for one in answer.body["violations"]]


@pytest.fixture(params=["asgi", "lane"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """2030-01-01 12:00, a Tuesday."""
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
    shop.at(NOON)
    return shop
