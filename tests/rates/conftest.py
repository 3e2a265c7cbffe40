"""A sidecar with a store: plain ASGI on fakeredis, and uvicorn with the hot lane on the real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.sidecar import Api
from tests.api.with_a_store import WAYS, at_noon

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


@pytest.fixture(params=WAYS)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """2030-01-01 12:00, u has 5 credits, and the card is there."""
    with at_noon(Shop, request, tmp_path) as found:
        found.put()
        found.add("u", 5)
        yield found
