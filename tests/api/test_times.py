"""Times: any offset in, UTC with milliseconds out; and the test clock."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from meter.app import create_app
from meter.testing import fake_redis, fake_settings
from tests.api.sidecar import Api, problem_members


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00.000Z"),
        ("2030-01-01T00:00:00.5Z", "2030-01-01T00:00:00.500Z"),
        ("2030-01-01T00:00:00.123456Z", "2030-01-01T00:00:00.123Z"),
        ("2030-01-01T00:00:00+00:00", "2030-01-01T00:00:00.000Z"),
        ("2030-01-01T05:30:00+05:30", "2030-01-01T00:00:00.000Z"),
        ("2029-12-31T14:15:00-09:45", "2030-01-01T00:00:00.000Z"),
        ("2030-01-01t00:00:00z", "2030-01-01T00:00:00.000Z"),
        ("9999-12-31T23:59:59Z", None),
    ],
)
def test_any_offset_is_taken_and_utc_with_milliseconds_answered(api: Api, sent: str, answered: str | None) -> None:
    api.post("/add", {"user_id": "u", "amount": 1, "grant_id": "g", "expires_at": sent})
    assert api.get("/grants/u")["items"][0]["expires_at"] == answered


NO_TIMES: list[object] = [
    "2030-01-01T00:00:00",
    "2030-01-01",
    "2030-13-01T00:00:00Z",
    "2030-02-30T00:00:00Z",
    "00:00:00Z",
    "tomorrow",
    "",
    "1893456000",
    1893456000,
    1893456000.5,
    0,
    True,
    [],
    {},
    "2030-01-01T00:00:00+25:00",
]


def test_what_is_no_time_with_an_offset_is_a_field_error(api: Api) -> None:
    for text in NO_TIMES:
        for name in ("effective_at", "expires_at"):
            members = api.refused(422, "validation-error", "POST", "/add", {"user_id": "u", "amount": 1, name: text})
            assert [error["pointer"] for error in members["errors"]] == [f"/{name}"], text
        answer = api.call("PUT", "/test-clock", {"now": text})
        assert problem_members(answer, 422, "validation-error")["errors"][0]["pointer"] == "/now"
        if isinstance(text, str):
            members = api.refused(422, "validation-error", "GET", f"/balance/u?at={quote(text)}")
            assert [error["pointer"] for error in members["errors"]] == ["/at"]
    assert api.entries() == []


@pytest.mark.parametrize("expires_at", ["2023-11-14T22:13:20.000Z", "2023-11-14T22:13:19Z", "1969-12-31T00:00:00Z"])
def test_a_grant_that_has_ended_already_is_a_field_error(api: Api, expires_at: str) -> None:
    body = {"user_id": "u", "amount": 1, "expires_at": expires_at}
    members = api.refused(422, "validation-error", "POST", "/add", body)
    assert [error["pointer"] for error in members["errors"]] == ["/expires_at"]
    assert api.entries() == []


@pytest.mark.parametrize(
    ("effective_at", "pointer"),
    [
        ("0001-01-01T00:00:00Z", "/effective_at"),
        ("0001-01-01T00:00:00+14:00", "/effective_at"),
        ("1969-12-31T23:59:59.999Z", "/effective_at"),
        ("2286-11-20T17:46:39.999Z", "/effective_at"),
        ("9999-12-31T23:59:59Z", "/effective_at"),
    ],
)
def test_a_start_that_no_clock_reaches_is_a_field_error_and_harms_no_account(
    api: Api, effective_at: str, pointer: str
) -> None:
    body = {"user_id": "u", "amount": 1, "effective_at": effective_at}
    members = api.refused(422, "validation-error", "POST", "/add", body)
    assert [error["pointer"] for error in members["errors"]] == [pointer]
    assert api.post("/add", {"user_id": "u", "amount": 1, "effective_at": "1970-01-01T00:00:00.001Z"})["available"] == 1
    assert api.available("u") == 1


def test_a_grant_starts_and_ends_on_the_millisecond(api: Api) -> None:
    body = {
        "user_id": "u",
        "amount": 1,
        "effective_at": "2023-11-14T22:13:21.500Z",
        "expires_at": "2023-11-14T22:13:22.500Z",
    }
    added = api.post("/add", body)
    assert (added["available"], api.get("/grants/u")["items"][0]["state"]) == (0, "scheduled")
    seen = []
    for step in (1.499, 0.001, 0.999, 0.001):
        api.advance(step)
        seen.append(int(api.available("u")))
    assert seen == [0, 1, 1, 0]


def test_a_time_span_that_is_none_is_a_field_error(api: Api) -> None:
    body = {
        "user_id": "u",
        "amount": 1,
        "effective_at": "2030-01-01T00:00:00Z",
        "expires_at": "2030-01-01T01:00:00+01:00",
    }
    members = api.refused(422, "validation-error", "POST", "/add", body)
    assert [error["pointer"] for error in members["errors"]] == ["/expires_at"]


def test_the_test_clock_is_read_frozen_and_moved_forward_only(api: Api) -> None:
    assert api.call("GET", "/test-clock").body == {"now": "2023-11-14T22:13:20.000Z", "frozen": True}
    moved = api.call("PUT", "/test-clock", {"advance_seconds": 1.5})
    assert (moved.status, moved.body) == (200, {"now": "2023-11-14T22:13:21.500Z", "frozen": True})
    moved = api.call("PUT", "/test-clock", {"now": "2030-01-01T02:00:00+02:00"})
    assert (moved.status, moved.body["now"]) == (200, "2030-01-01T00:00:00.000Z")
    back = api.call("PUT", "/test-clock", {"now": "2029-12-31T23:59:59.999Z"})
    assert problem_members(back, 409, "clock-backwards") == {}
    for body in ({}, {"now": "2031-01-01T00:00:00Z", "advance_seconds": 1}, {"advance_seconds": -1}, {"until": 1}):
        problem_members(api.call("PUT", "/test-clock", body), 422, "validation-error")
    problem_members(api.call("PUT", "/test-clock", {"now": "2286-11-20T17:46:39.999Z"}), 422, "validation-error")
    problem_members(api.call("PUT", "/test-clock", {"advance_seconds": 1e300}), 422, "validation-error")
    assert api.call("GET", "/test-clock").body["now"] == "2030-01-01T00:00:00.000Z"


def test_p17_the_clock_is_moved_once_under_a_key() -> None:
    """In every partition, also where the first call was cut off between two of them."""
    redis = fake_redis()
    with TestClient(create_app(fake_settings(partitions=3), redis)) as http:

        def put(key: str, **body: object) -> Response:
            return http.put("/test-clock", json=body, headers={"idempotency-key": key})

        def times() -> list[bytes | None]:
            assert http.portal is not None
            return [http.portal.call(redis.field, f"meter:{{p{number}}}:meta", "clock_ms") for number in range(3)]

        put("first", now="2030-01-01T00:00:00Z")
        moved = put("k", advance_seconds=60)
        assert moved.json()["now"] == "2030-01-01T00:01:00.000Z" and "idempotency-replayed" not in moved.headers
        assert put("later", advance_seconds=60).json()["now"] == "2030-01-01T00:02:00.000Z"
        now = times()
        assert len(set(now)) == 1
        again = put("k", advance_seconds=60)
        assert (again.content, again.headers["idempotency-replayed"]) == (moved.content, "true")
        for body in ({"advance_seconds": 61}, {"now": moved.json()["now"]}):
            problem = put("k", **body)
            assert (problem.status_code, problem.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
        assert put("back", now="2029-01-01T00:00:00Z").json()["code"] == "CLOCK_BACKWARDS"
        assert times() == now
        assert put("back", advance_seconds=60).status_code == 200, "a refusal poisons no key"

        now = times()
        assert http.portal is not None
        http.portal.call(redis.drop_fields, "meter:{p2}:meta", ["clock_ms"])
        assert put("back", advance_seconds=60).headers["idempotency-replayed"] == "true"
        assert times() == now


def test_without_the_setting_there_is_no_test_clock() -> None:
    with TestClient(create_app(fake_settings(test_clock=False), fake_redis())) as http:
        for method in ("GET", "PUT"):
            answer = http.request(method, "/test-clock", json={"advance_seconds": 1} if method == "PUT" else None)
            assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


def test_the_test_clock_moves_every_partition() -> None:
    with TestClient(create_app(fake_settings(partitions=3), fake_redis())) as http:
        users = [f"user-{n}" for n in range(9)]
        for user_id in users:
            body = {"user_id": user_id, "amount": 1, "expires_at": "2100-01-01T00:00:00Z"}
            assert http.post("/credits/add", json=body).status_code == 200
        assert http.put("/test-clock", json={"now": "2100-01-01T00:00:00Z"}).json()["frozen"]
        assert [http.get(f"/credits/balance/{user_id}").json()["available"] for user_id in users] == [0] * 9
