"""U5: every answer tells the id of its request, whatever the way in; a problem names it, and the log has it."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from starlette.testclient import TestClient
from starlette.types import Message

from meter.api.lane.protocol import HotProtocol
from meter.engine.engine import Engine
from meter.http.bounded import BoundedProtocol
from meter.http.request_id import Identified
from meter.log import current_request_id, logger
from meter.testing import fake_app
from tests.api.lane.answers import Answer, balance, deduct, livez, request
from tests.api.lane.ways import Way, Ways

BROUGHT = "X-Request-Id: req-17"
USER = "X-User-Id: rich"
REQUESTS = {
    "hot": deduct("rich", 1, BROUGHT),
    "hot and refused": deduct("nobody", 1, BROUGHT),
    "hot and made": request("POST", "/credits/reservations", BROUGHT, body={"user_id": "rich", "amount": 1}),
    "hot, read": balance("rich", BROUGHT),
    "hot, no json": request("POST", "/credits/deduct", BROUGHT, body=b"{"),
    "replayed": deduct("rich", 2, BROUGHT, "Idempotency-Key: request-id"),
    "cold": request("GET", "/credits/plans", BROUGHT),
    "cold and refused": request("GET", "/credits/history/rich?limit=x", BROUGHT),
    "probe": livez(BROUGHT),
    "static": request("GET", "/openapi.json", BROUGHT),
    "nowhere": request("GET", "/nothing", BROUGHT),
    "another method": request("PUT", "/credits/deduct", BROUGHT),
    "head": request("HEAD", "/credits/deduct", BROUGHT),
    "gateway": request("GET", "/gateway/authorize", BROUGHT, USER),
    "gateway, refused": request("GET", "/gateway/authorize", BROUGHT),
    "gateway of nginx, refused": request("GET", "/gateway/authorize?dialect=nginx", BROUGHT),
    "gateway's commit": request("GET", "/gateway/commit", BROUGHT, USER),
    "gateway's log": request("POST", "/gateway/logs", BROUGHT, body=[]),
    "page of another origin": deduct("rich", 1, BROUGHT, "Origin: https://evil.example"),
}


def told(answer: Answer) -> str:
    """The id that an answer tells; a problem tells the same in its document."""
    [found] = [value for name, value in answer.headers if name == "x-request-id"]
    if answer.body and answer.header("content-type") == "application/problem+json":
        assert answer.json["request_id"] == found
    assert answer.header("content-length") == str(len(answer.body)) or not answer.body
    return found


@pytest.mark.parametrize("name", REQUESTS)
def test_u5_an_answer_has_the_id_that_its_request_brought(ways: Ways, name: str) -> None:
    for outcome in ways.both([REQUESTS[name]]):
        [answer] = outcome.answers
        assert told(answer) == "req-17"


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize(
    "line",
    ["", "X-Request-Id: " + "x" * 129, "X-Request-Id: a b", 'X-Request-Id: "', "X-Request-Id: \xe9", "X-Request-Id:"],
)
def test_u5_without_one_that_can_be_kept_it_is_a_new_one(ways: Ways, name: str, line: str) -> None:
    if name.startswith("gateway") and line:
        return  # a gateway's id chooses a reservation, so a wrong one is refused
    lines = REQUESTS[name].replace(BROUGHT.encode() + b"\r\n", f"{line}\r\n".encode("latin-1") if line else b"")
    found = [told(outcome.answers[0]) for _ in range(2) for outcome in ways.both([lines])]
    assert len(set(found)) == 4
    assert all(one.isascii() and one.isprintable() and len(one) < 40 for one in found)


def test_u5_what_ends_a_connection_is_named_too(ways: Ways) -> None:
    for outcome in ways.both([b"nonsense\r\n\r\n"]):
        assert told(outcome.answers[-1])
    many = request("GET", "/livez", *(f"X-{n}: 1" for n in range(200)))
    for outcome in ways.both([many]):
        assert (outcome.statuses, bool(told(outcome.answers[0]))) == ([431], True)


def test_u5_sent_twice_it_is_none(ways: Ways) -> None:
    for outcome in ways.both([deduct("rich", 1, BROUGHT, "X-Request-Id: other")]):
        assert told(outcome.answers[0]) not in ("req-17", "other")


@pytest.mark.parametrize("hot", [True, False])
def test_u5_the_row_has_the_id_as_its_reference_and_no_retry_is_told_apart_by_it(hot: bool) -> None:
    """What a request books is found by its id; the key of a call stands for it whatever ids its tries have."""
    with TestClient(fake_app(store_url="memory://", hot_lane=hot)) as http:

        def post(path: str, body: object, request_id: str, key: str) -> bytes:
            headers = {"x-request-id": request_id, "idempotency-key": key}
            response = http.post("/credits" + path, json=body, headers=headers)
            assert response.status_code < 300, response.text
            return response.content

        calls = {
            "/add": {"user_id": "u", "amount": 100, "grant_id": "g"},
            "/deduct": {"user_id": "u", "amount": 5},
            "/reservations": {"user_id": "u", "amount": 5, "reservation_id": "r"},
            "/batch": {"operations": [{"op": "deduct", "user_id": "u", "amount": 1}]},
        }
        for n, (path, body) in enumerate(calls.items()):
            first = post(path, body, f"req-{n}", f"key-{n}")
            assert post(path, body, f"again-{n}", f"key-{n}") == first
        for n in (1, 2, 3):
            [row] = http.get(f"/credits/history?reference=req-{n}").json()["items"]
            assert row["reference"] == f"req-{n}"
            assert not http.get(f"/credits/history?reference=again-{n}").json()["items"]
        own = {"user_id": "u", "amount": 1, "reference": "order-1"}
        http.post("/credits/deduct", json=own, headers={"x-request-id": "req-9"})
        http.post("/credits/add", json={"user_id": "u", "amount": 1}, headers={"x-request-id": "req-10"})
        items = http.get("/credits/history/u?limit=2").json()["items"]
        assert [item["reference"] for item in items] == ["req-10", "order-1"]


async def test_u5_every_line_of_a_request_has_its_id_and_no_other_line(caplog: pytest.LogCaptureFixture) -> None:
    """A task that a request starts and that outlives it is not the request's any more."""
    log, outlived = logger("meter.tested"), asyncio.Event()
    lasting: list[asyncio.Task[None]] = []

    async def lives_on() -> None:
        await outlived.wait()
        log.warning("later")

    async def app(*_: object) -> None:
        log.warning("in between")
        lasting.append(asyncio.create_task(lives_on()))

    async def unused(*_: object) -> Message:
        return {}

    with caplog.at_level(logging.WARNING):
        await Identified(app)({"type": "http", "headers": [(b"x-request-id", b"req-1")]}, unused, unused)  # type: ignore[arg-type]
        assert current_request_id() == ""
        outlived.set()
        await lasting[0]
    fields = [getattr(record, "meter_fields") for record in caplog.records]  # noqa: B009 - no attribute that mypy knows
    assert fields == [{"request_id": "req-1"}, {}]


@pytest.mark.parametrize("brings", [True, False])
@pytest.mark.parametrize("target", ["/credits/deduct", "/credits/add", "/gateway/authorize"])
async def test_u5_a_fault_of_ours_is_logged_under_the_id_that_is_answered(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, target: str, brings: bool
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken on purpose")

    for http in (HotProtocol, BoundedProtocol):
        caplog.clear()
        way = Way(fake_app(store_url="none"), http)
        async with way.app.router.lifespan_context(way.app):
            with monkeypatch.context() as patched:
                patched.setattr(Engine, "submit", broken)
                patched.setattr(Engine, "run", broken)
                headers = [USER, *([BROUGHT] if brings else [])]
                [answer] = (
                    await way.talk([request("POST", target, *headers, body={"user_id": "u", "amount": 1})])
                ).answers
        assert answer.status == 500, answer
        found = told(answer)
        assert found == "req-17" or not brings
        [record] = [record for record in caplog.records if record.getMessage().startswith("internal error")]
        assert getattr(record, "meter_fields")["request_id"] == found == json.loads(answer.body)["id"]  # noqa: B009
