"""A sidecar with a store: plain ASGI on fakeredis, and uvicorn with the hot lane on the real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.api.sidecar import Answer, Api
from tests.api.with_a_store import WAYS, at_noon

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


@pytest.fixture(params=WAYS)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """2030-01-01 12:00, a Tuesday."""
    with at_noon(Shop, request, tmp_path) as found:
        yield found
