"""A sidecar with a store at 2030-01-01 12:00: plain ASGI on fakeredis, and the hot lane of uvicorn on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.sidecar import Answer, Api, problem_members
from tests.api.with_a_store import WAYS, at_noon
from tests.rates.conftest import CARD

Json = dict[str, Any]


class Counter(Api):
    """A sidecar, and what one asks of it about keys."""

    folder: Path | None = None

    def add(self, user_id: str, amount: float) -> None:
        self.post("/add", {"user_id": user_id, "amount": amount})

    def issue(self, user_id: str | None = "u", **members: object) -> Json:
        """A new key, its text among what is told of it."""
        body = {"user_id": user_id, **members} if user_id is not None else members
        found: Json = self.post("/keys", body, status=201)
        return found

    def reserve(self, text: str, amount: object = 1, **members: object) -> Answer:
        """A hold that is asked for by a key: of an amount, or of a usage where that is an object."""
        asked = {"usage": amount} if isinstance(amount, dict) else {"amount": amount}
        return self.call("POST", "/credits/reservations", {"api_key": text, **asked, **members})

    def invalid(self, answer: Answer) -> None:
        """It is refused as one that there is not, whatever is wrong with it."""
        assert problem_members(answer, 401, "invalid-key") == {}
        assert answer.headers["www-authenticate"] == 'Bearer realm="meter"'

    def settle(self) -> None:
        """Lets the store have all."""
        self.http.get("/credits/history/u")

    def store_files(self) -> list[Path]:
        """The files of the store, where it has some."""
        return [] if self.folder is None else [path for path in self.folder.iterdir() if path.is_file()]

    def everything_in_redis(self) -> bytes:
        """All keys of Redis, with what is in them."""
        return b"\n".join(self.client.dump(key) or b"" for key in self.client.scan_iter())


@pytest.fixture(params=WAYS)
def counter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Counter]:
    """u has 5 credits, and the card of the acceptance cases is there."""
    with at_noon(Counter, request, tmp_path) as found:
        answer = found.call("PUT", "/credits/rate-cards/default", {"models": CARD})
        assert answer.status == 200, answer.raw
        found.add("u", 5)
        found.folder = tmp_path if request.param == "lane" else None
        yield found


def mistyped(text: str) -> str:
    """The text of a key with a slip at its end."""
    return text[:-1] + ("1" if text[-1] == "0" else "0")
