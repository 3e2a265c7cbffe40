"""`POST /gateway/logs`: meter/gateway/logs.py, meter/gateway/entries.py, meter/gateway/sources.py."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from meter.gateway.entries import ENTRIES_MAX
from meter.gateway.sources import SOURCES
from tests.gateway.caller import Caller, calling

DONE = {"accepted": 1, "ignored": 0, "failed": 0}
IGNORED = {"accepted": 0, "ignored": 1, "failed": 0}
FAILED = {"accepted": 0, "ignored": 0, "failed": 1}


def test_entries_settle_their_reservations(caller: Caller) -> None:
    ids = [caller.held() for _ in range(3)]

    counted = caller.logs(
        {"reservation_id": ids[0], "status": "200", "usage": "30"},
        {"reservation_id": ids[1], "status": 500, "usage": 30},
        {"reservation_id": ids[2], "status": 200, "usage": 12.5},
    )

    assert counted == {"accepted": 3, "ignored": 0, "failed": 0}
    assert caller.balance() == (957.5, 0)


def test_one_bad_line_costs_nobody_else_a_line(caller: Caller) -> None:
    reservation_id = caller.held()
    lines = [
        b'{"reservation_id":',
        b"[]",
        b"7",
        b"",
        b'{"reservation_id":"a b","usage":1}',
        b'{"reservation_id":"r0_unknown","usage":1}',
        b'{"reservation_id":"%b","usage":"many"}' % reservation_id.encode(),
        b'{"message":"started"}',
        b'{"reservation_id":"%b","usage":30}' % reservation_id.encode(),
        b"\xff\xfe",
    ]

    answer = caller.http.post("/gateway/logs", content=b"\n".join(lines))

    assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "ignored": 1, "failed": 7})
    assert caller.balance() == (970, 0)


def test_a_delivery_may_come_twice(caller: Caller) -> None:
    entry = {"reservation_id": caller.held(), "status": 200, "usage": 30}

    assert [caller.logs(entry), caller.logs(entry)] == [DONE, DONE]
    assert caller.logs({**entry, "usage": 31}) == IGNORED
    assert caller.balance() == (970, 0)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP ", gzip.compress), ("identity", lambda data: data)],
)
@pytest.mark.parametrize("shape", ["array", "object", "lines"])
def test_deliveries_come_as_array_object_or_lines_and_compressed(
    caller: Caller, shape: str, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    entry = {"reservation_id": caller.held(), "usage": 30}
    ignored = {"message": "other"}
    text = {
        "array": json.dumps([entry, ignored], indent=1),
        "object": json.dumps(entry, indent=1),
        "lines": f"{json.dumps(entry)}\r\n\n{json.dumps(ignored)}",
    }[shape]

    answer = caller.http.post("/gateway/logs", content=pack(text.encode()), headers={"content-encoding": encoding})

    assert answer.json() == {**DONE, "ignored": 0 if shape == "object" else 1}


def test_a_delivery_has_its_limits() -> None:
    with calling(gateway_logs_max_bytes=2048) as caller:

        def post(content: bytes, **headers: str) -> tuple[int, str]:
            answer = caller.http.post("/gateway/logs", content=content, headers=headers)
            return answer.status_code, answer.json().get("type", "")

        too_large = (413, "/problems/body-too-large")
        unreadable = (415, "/problems/unsupported-media-type")
        packed = {"content-encoding": "gzip"}
        assert post(b"[" + b" " * 2048) == too_large
        assert post(gzip.compress(b" " * 1_000_000), **packed) == too_large
        assert post(gzip.compress(b"[]")[:-9], **packed) == unreadable
        assert post(b"no gzip", **packed) == unreadable
        assert post(b"[]", **{"content-encoding": "br"}) == unreadable
        assert post(b"[]") == (202, "")
        assert post(b"") == (202, "")


def test_a_delivery_has_at_most_so_many_entries(caller: Caller) -> None:
    many: list[object] = [{}] * ENTRIES_MAX

    assert caller.logs(*many)["ignored"] == ENTRIES_MAX
    assert caller.http.post("/gateway/logs", json=[*many, {}]).status_code == 413


def test_an_unknown_source_is_refused(caller: Caller) -> None:
    for query in ("?source=apache", "?sauce=nginx"):
        answer = caller.http.post(f"/gateway/logs{query}", json=[])
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/source")


def entry_of(source: str, reservation_id: str) -> dict[str, Any]:
    """An entry as that gateway writes it, of a request that used 30."""
    headers = {"x-reservation-id": reservation_id, "x-user-id": "u"}
    entries: dict[str, dict[str, Any]] = {
        "meter": {"reservation_id": reservation_id, "usage": 30},
        "nginx": {
            "http_x_reservation_id": reservation_id,
            "status": "200",
            "upstream_http_x_credits_actual": "30",
            "request_completion": "OK",
        },
        "haproxy": {"reservation_id": reservation_id, "status": "200", "usage": "30", "termination": "--"},
        "envoy": {"reservation_id": reservation_id, "status": 200, "usage": 30, "flags": "-"},
        "caddy": {
            "request": {"headers": {"X-Reservation-Id": ["spoofed"]}},
            "status": 200,
            "reservation_id": reservation_id,
            "resp_headers": {"X-Credits-Actual": ["30"]},
        },
        "traefik": {
            "request_X-Reservation-Id": reservation_id,
            "OriginStatus": 200,
            "DownstreamStatus": 200,
            "origin_X-Credits-Actual": "30",
        },
        "apisix": {
            "reservation_id": reservation_id,
            "status": "200",
            "llm_prompt_tokens": "10",
            "llm_completion_tokens": "20",
        },
        "kong": {
            "request": {"headers": headers},
            "response": {"status": 200, "headers": {}},
            "ai": {"proxy": {"usage": {"total_tokens": 30}}},
        },
        "litellm": {
            "id": "chatcmpl-1",
            "status": "success",
            "total_tokens": 30,
            "metadata": {"requester_custom_headers": headers},
        },
    }
    return entries[source]


@pytest.mark.parametrize("source", SOURCES)
def test_every_source_is_read(caller: Caller, source: str) -> None:
    assert caller.logs(entry_of(source, caller.held()), source=source) == DONE

    assert caller.balance() == (970, 0)


@pytest.mark.parametrize(
    ("source", "entry", "charged"),
    [
        ("nginx", {"status": "200", "complete": ""}, 100),
        ("nginx", {"status": "200", "complete": "OK"}, 0),
        ("nginx", {"status": "499", "complete": ""}, 100),
        ("nginx", {"status": "502, 200", "usage": "30", "complete": "OK"}, 30),
        ("nginx", {"status": "500", "usage": "30", "complete": ""}, 0),
        ("haproxy", {"status": "200", "usage": "-", "termination": "CD"}, 100),
        ("haproxy", {"status": "200", "usage": "30", "termination": "CD"}, 30),
        ("haproxy", {"status": "200", "usage": "-", "termination": "SD"}, 0),
        ("haproxy", {"status": "-1", "usage": "-", "termination": "CR"}, 100),
        ("haproxy", {"status": "200", "usage": "-", "termination": "--"}, 0),
        ("envoy", {"status": 200, "usage": None, "flags": "DC"}, 100),
        ("envoy", {"status": 0, "usage": None, "flags": "DC"}, 100),
        ("envoy", {"status": 200, "usage": None, "flags": "UT"}, 0),
        ("envoy", {"status": 503, "usage": None, "flags": "UF"}, 0),
        ("meter", {"status": 200, "complete": True}, 0),
        ("meter", {"status": 200, "complete": False}, 100),
        ("meter", {"status": 0}, 100),
    ],
)
def test_how_a_request_ended_decides_what_it_costs(
    caller: Caller, source: str, entry: dict[str, Any], charged: int
) -> None:
    assert caller.logs({"reservation_id": caller.held(), **entry}, source=source) == DONE

    assert caller.balance() == (1000 - charged, 0)


@pytest.mark.parametrize(
    "entry",
    [
        {"user_id": "u", "request_id": "a b", "usage": 1},
        {"user_id": "{u}", "request_id": "a", "usage": 1},
        {"reservation_id": ["a", "b"], "user_id": "u", "request_id": "unknown"},
        {"reservation_id": "r", "usage": -1},
        {"reservation_id": "r", "usage": "1 2"},
    ],
)
def test_entries_that_cannot_be_are_failures(caller: Caller, entry: dict[str, Any]) -> None:
    assert caller.logs(entry) == FAILED


@pytest.mark.parametrize("entry", [{}, {"user_id": "u"}, {"request_id": "a"}, {"reservation_id": "-", "status": 402}])
def test_entries_about_no_metered_request_are_ignored(caller: Caller, entry: dict[str, Any]) -> None:
    assert caller.logs(entry) == IGNORED


def test_reservations_whose_ids_callers_chose_are_searched_for() -> None:
    with calling(partitions=3) as caller:
        for user_id in ("a", "b", "c", "d"):
            caller.add(user_id, 100)
            body = {"user_id": user_id, "amount": 10, "reservation_id": f"own-{user_id}"}
            assert caller.http.post("/credits/reservations", json=body).status_code == 201

        counted = caller.logs(*({"reservation_id": f"own-{user_id}", "usage": 4} for user_id in "abcd"))

        assert counted["accepted"] == 4
        assert [caller.balance(user_id) for user_id in "abcd"] == [(96, 0)] * 4


def test_what_was_not_decided_is_for_the_sender_to_repeat(caller: Caller) -> None:
    reservation_id = caller.held()
    caller.redis.hset("meter:{p0}:meta", "state", "closed")

    answer = caller.http.post("/gateway/logs", json=[{"reservation_id": reservation_id, "usage": 1}])

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["type"] == "/problems/metering-unavailable"
