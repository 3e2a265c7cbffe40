"""A sidecar with a store at 2030-01-01 12:00: plain ASGI on fakeredis, and uvicorn on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.sidecar import Answer
from tests.api.with_a_store import WAYS, at_noon
from tests.keys.conftest import Counter

Json = dict[str, Any]


class Booth(Counter):
    """A sidecar, and what one asks of it about promo codes."""

    def make(self, code: str | None = "SPRING", amount: object = 5, max_total: int = 100, **more: object) -> Json:
        """A new code, its text among what is told of it."""
        chosen = {} if code is None else {"code": code}
        found: Json = self.post("/codes", {**chosen, "amount": amount, "max_total": max_total, **more}, status=201)
        return found

    def redeem(self, user_id: str, code: str = "spring", *, key: str | None = None, **more: object) -> Answer:
        return self.call("POST", "/credits/redeem", {"user_id": user_id, "code": code, **more}, key=key)

    def code(self, code_id: str) -> Json:
        """What the list has of a code."""
        return next(one for one in self.get("/codes?limit=500")["items"] if one["code_id"] == code_id)


@pytest.fixture(params=WAYS)
def booth(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Booth]:
    with at_noon(Booth, request, tmp_path) as found:
        found.folder = tmp_path if request.param == "lane" else None
        yield found
