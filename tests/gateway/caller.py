"""A caller of the gateway endpoints of a sidecar on fakeredis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from fakeredis import FakeRedis, FakeServer
from httpx2 import Response
from starlette.testclient import TestClient

from meter.engine.outbox import Entry
from meter.keys import PartitionKeys
from meter.testing import fake_app
from tests.partition import entries_of

PATIENT_MS = 10_000
NO_HEADERS = ("x-reservation-id", "x-credits-reserved", "x-credits-remaining")


class Caller:
    """A sidecar; `_` in the name of a header stands for `-`."""

    def __init__(self, http: TestClient, server: FakeServer) -> None:
        self.http = http
        self.redis: Any = FakeRedis(server=server)

    def add(self, user_id: str, amount: int) -> None:
        """Credits in."""
        assert self.http.post("/credits/add", json={"user_id": user_id, "amount": amount}).status_code == 200

    def authorize(self, query: str = "", *, method: str = "GET", path: str = "", **headers: str) -> Response:
        """`/gateway/authorize`"""
        return self.http.request(method, f"/gateway/authorize{path}{query}", headers=_spelt(headers))

    def commit(self, *, method: str = "GET", **headers: str) -> Response:
        """`/gateway/commit`"""
        return self.http.request(method, "/gateway/commit", headers=_spelt(headers))

    def logs(self, *entries: object, source: str = "meter") -> dict[str, int]:
        """`/gateway/logs` with a JSON array: what was counted."""
        answer = self.http.post(f"/gateway/logs?source={source}", json=entries)
        assert answer.status_code == 202, answer.text
        counted: dict[str, int] = answer.json()
        return counted

    def held(self, user_id: str = "u", amount: int = 100, **headers: str) -> str:
        """The reservation of a request that was allowed."""
        answer = self.authorize(x_user_id=user_id, x_estimated_tokens=str(amount), **headers)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-reservation-id"]

    def balance(self, user_id: str = "u") -> tuple[Decimal | int, Decimal | int]:
        """What is available and reserved."""
        body = json.loads(self.http.get(f"/credits/balance/{user_id}").content, parse_float=Decimal)
        return body["available"], body["reserved"]

    def advance(self, seconds: float) -> None:
        """Moves the test clock."""
        assert self.http.put("/test-clock", json={"advance_seconds": seconds}).status_code == 200

    def entries(self) -> list[Entry]:
        """The outbox of partition 0."""
        return entries_of(self.redis.xrange(PartitionKeys(0).outbox))


def refusal(answer: Response, status: int, slug: str) -> dict[str, Any]:
    """The problem of a refusal, which carries the documented headers, too."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(NO_HEADERS) <= set(answer.headers)
    assert answer.headers["x-reservation-id"] == ""
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"/problems/{slug}"
    return problem


@contextmanager
def calling(**settings: object) -> Iterator[Caller]:
    """A caller of a sidecar with those settings."""
    server = FakeServer()
    with TestClient(fake_app(server, **{"gateway_timeout_ms": PATIENT_MS, **settings})) as http:
        caller = Caller(http, server)
        yield caller
        caller.redis.close()


def _spelt(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
