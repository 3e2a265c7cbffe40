"""A sidecar under test and a caller of its HTTP API, in process or over a socket."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx2
import uvicorn
from starlette.applications import Starlette

from meter.api.lane.protocol import HotProtocol
from meter.engine.outbox import Entry
from meter.keys import PartitionKeys
from tests.partition import entries_of

DEADLINE_SECONDS = 20.0


def wait_for(condition: Callable[[], object], what: str, *, seconds: float = DEADLINE_SECONDS) -> None:
    """Returns when the condition is true; fails when it is not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


@contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """The URL of the application, served by uvicorn from a thread."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="warning", lifespan="on", http=HotProtocol, proxy_headers=False
    )
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[assignment, method-assign]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive(), "the sidecar serves")
    assert server.started
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()


@dataclass(frozen=True)
class Answer:
    """An answer; `body` has its numbers exact."""

    status: int
    headers: Mapping[str, str]
    raw: bytes
    body: Any

    @property
    def replayed(self) -> bool:
        """Whether it is marked as the answer of an earlier call."""
        return self.headers.get("idempotency-replayed") == "true"


class Api:
    """Calls a sidecar. `client` is the Redis below it, to look at what was written."""

    def __init__(self, http: httpx2.Client, client: Any) -> None:
        self.http = http
        self.client = client
        self.keys = PartitionKeys(0)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        key: str | None = None,
        content: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One call; `content` is a body that is sent as it is."""
        sent = dict(headers or {})
        if body is not None:
            content = json.dumps(body).encode()
        if content is not None:
            sent.setdefault("content-type", "application/json")
        if key is not None:
            sent["idempotency-key"] = key
        answer = self.http.request(method, path, content=content, headers=sent)
        raw = answer.content
        text = (
            json.loads(raw, parse_float=Decimal) if "json" in answer.headers.get("content-type", "") and raw else None
        )
        return Answer(answer.status_code, answer.headers, raw, text)

    def post(self, path: str, body: object = None, *, status: int = 200, key: str | None = None) -> Any:
        """The body of a POST below /credits that must succeed."""
        return self._ok(status, self.call("POST", "/credits" + path, body, key=key))

    def patch(self, path: str, body: object, *, key: str | None = None) -> Any:
        """The body of a PATCH below /credits that must succeed."""
        return self._ok(200, self.call("PATCH", "/credits" + path, body, key=key))

    def get(self, path: str) -> Any:
        """The body of a GET below /credits that must succeed."""
        return self._ok(200, self.call("GET", "/credits" + path))

    def refused(
        self, status: int, slug: str, method: str, path: str, body: object = None, *, key: str | None = None
    ) -> dict[str, Any]:
        """The members of a problem below /credits beyond those that every problem has, which are checked."""
        return problem_members(self.call(method, "/credits" + path, body, key=key), status, slug)

    def advance(self, seconds: float) -> None:
        """Moves the test clock."""
        answer = self.call("PUT", "/test-clock", {"advance_seconds": seconds})
        assert answer.status == 200, answer

    def entries(self) -> list[Entry]:
        """The outbox of partition 0."""
        return entries_of(self.client.xrange(self.keys.outbox))

    def available(self, user_id: str) -> Decimal:
        """What a user has available."""
        return Decimal(self.get(f"/balance/{user_id}")["available"])

    @staticmethod
    def _ok(status: int, answer: Answer) -> Any:
        assert answer.status == status, answer.raw
        assert answer.headers["content-type"] == "application/json"
        return answer.body


def problem_members(answer: Answer, status: int, slug: str) -> dict[str, Any]:
    """What a problem document has beyond its standard members, which are checked."""
    assert answer.status == status, answer.raw
    assert answer.headers["content-type"] == "application/problem+json"
    members = dict(answer.body)
    assert (members.pop("type"), members.pop("status")) == (f"/problems/{slug}", status)
    assert members.pop("code") == slug.upper().replace("-", "_")
    assert members.pop("request_id") == answer.headers["x-request-id"]
    assert members.pop("title")
    assert members.pop("detail")
    assert not {"type", "status", "code", "title", "detail"} & set(members)
    rule = {"insufficient-credits": "credits", "account-suspended": "suspended"}.get(slug)
    assert rule is None or all(one["rule"] == rule for one in members.pop("violations"))
    return members


def balances(available: object, reserved: object = 0, debt: object = 0) -> dict[str, object]:
    """The five balances that every answer carries."""
    free, held = Decimal(str(available)), Decimal(str(reserved))
    return {
        "credits": free,
        "balance": free + held,
        "reserved": held,
        "available": free,
        "debt": Decimal(str(debt)),
    }
