"""What shippers and gateways write into logs (K8-K11, K16): one bad entry never spoils its delivery."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from meter.gateway.ext_proc import accepts_gzip
from meter.gateway.settlement import is_status, read_status, read_usages
from tests.gateway.caller import Caller


def good(reservation_id: str, usage: object = 7) -> dict[str, object]:
    """An entry of the plain format."""
    return {"reservation_id": reservation_id, "status": 200, "usage": usage}


def line(reservation_id: str) -> bytes:
    return json.dumps(good(reservation_id)).encode()


def own(member: bytes) -> Callable[[str], bytes]:
    """An entry with a further member."""
    return lambda one: b'{"reservation_id":"%b","x":%b,"status":"200","usage":"7"}' % (one.encode(), member)


def post(caller: Caller, body: bytes, source: str = "meter") -> dict[str, int]:
    answer = caller.http.post(f"/gateway/logs?source={source}", content=body)
    assert answer.status_code == 202, answer.text
    counted: dict[str, int] = answer.json()
    return counted


@pytest.mark.parametrize(
    ("body", "failed"),
    [
        (lambda one: line(one) + b"\n" + b"[" * 1200 + b"]" * 1200, 1),
        (lambda one: b'[{"reservation_id":"x","a":"\xff"},' + line(one) + b"]", 1),
        (lambda one: b'[{"reservation_id":"x\t"},' + line(one) + b"]", 1),
        (lambda one: b'[{"n":' + b"1" * 5000 + b"}," + line(one) + b"]", 0),
        (lambda one: b'[{"n":' + b"[" * 3000 + b"]" * 3000 + b"}," + line(one) + b"]", 1),
        (lambda one: b'{"logs":[' + line(one) + b"]}", 0),
        (lambda one: b'{"logs": [ {"reservation_id":"\\q"}, ' + line(one) + b" ] }", 1),
        (lambda one: b'{"stream":"x","events":[' + line(one) + b"]}", 0),
        (lambda one: line(one) + b" " + line(one), 0),
        (lambda one: b'{"bad":tru}' + line(one), 1),
        (lambda one: line(one) + b"\n" + line(one)[:20], 1),
        (own(b'"\xff"'), 0),
        (own(b'"\x00\t"'), 0),
        (own(b'"a\\x22b\\\\x4\\xD0"'), 0),
        (own(b"1" * 5000), 0),
        (own(b"[" * 3000 + b"]" * 3000), 0),
        (own(b'{"a":' * 3000 + b"1" + b"}" * 3000), 0),
    ],
)
def test_one_bad_entry_never_spoils_its_delivery(caller: Caller, body: Callable[[str], bytes], failed: int) -> None:
    """K8."""
    counted = post(caller, body(caller.held()))

    assert counted["failed"] == failed
    assert caller.balance() == (993, 0)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        *(
            (text, 502)
            for text in ("502", "502.0", "502.000000", "502 Bad Gateway", "HTTP/1.1 502", "200, 502", "-:502")
        ),
        *((text, None) for text in ("-", "0", "-1", "", "0.0", "000")),
    ],
)
def test_a_status_is_read_however_it_is_written(text: str, status: int | None) -> None:
    """K9."""
    assert (read_status(text), is_status(text)) == (status, True)


@pytest.mark.parametrize("status", [502.0, "502.000000", "502 Bad Gateway", 5.02e2])
def test_a_failed_upstream_costs_nothing(caller: Caller, status: object) -> None:
    """K9: not "the client left"."""
    caller.logs({"reservation_id": caller.held(), "status": status})
    assert caller.balance() == (1000, 0)


def test_a_status_that_is_none_is_a_bad_entry(caller: Caller) -> None:
    assert caller.logs({"reservation_id": caller.held(), "status": "fine"})["failed"] == 1


@pytest.mark.parametrize("first", [{"status": 502}, {"status": 200, "usage": 0}, {"status": 200}])
@pytest.mark.parametrize("together", [True, False])
def test_a_definite_charge_follows_a_release(caller: Caller, first: dict[str, object], together: bool) -> None:
    """K10, C9: a request that failed at one upstream and succeeded at the next."""
    one = caller.held()
    words: list[dict[str, object]] = [
        {"reservation_id": one, **first},
        good(one),
        good(one),
        {"reservation_id": one, **first},
    ]
    if together:
        caller.logs(*words)
    else:
        for word in words:
            caller.logs(word)

    assert caller.balance() == (993, 0)
    assert [entry.kind for entry in caller.entries()][-1] == "deduct"
    caller.logs(good(one, 9))  # another word about what was charged meanwhile
    assert caller.balance() == (993, 0)


def test_a_failure_after_a_charge_changes_nothing(caller: Caller) -> None:
    one = caller.held()
    caller.logs(good(one), {"reservation_id": one, "status": 502})
    assert caller.balance() == (993, 0)


def test_litellm_tells_a_failure_and_then_a_success(caller: Caller) -> None:
    """C9."""
    one = caller.held()
    told = {"metadata": {"requester_custom_headers": {"X-Reservation-Id": one}}}
    caller.logs({"status": "failure", "total_tokens": 0, **told}, source="litellm")
    caller.logs({"status": "success", "total_tokens": 29, **told}, source="litellm")
    assert caller.balance() == (971, 0)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("apisix", {"llm_summary": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}),
        ("apisix", {"llm_summary": {"prompt_tokens": 3, "completion_tokens": 4}}),
        (
            "apisix",
            {
                "response": {"headers": {"x-credits-actual": "0"}},
                "llm_prompt_tokens": "3",
                "llm_completion_tokens": "4",
            },
        ),
        ("kong", {"ai": {"proxy": {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}}}),
        ("kong", {"ai": {"ai-proxy-advanced": {"usage": {"total_tokens": 7}}}}),
        ("kong", {"ai": {"x": {"meta": 1}, "proxy": {"usage": {"total_tokens": 7}}}}),
        ("nginx", {"status": "502, 200", "usage": "-, 7"}),
        ("nginx", {"status": "502, 200 : 200", "usage": "-, 7 : -"}),
        ("caddy", {"resp_headers": {"X-Credits-Actual": ["0", "7"]}}),
        ("caddy", {"resp_headers": {"x-credits-actual": ["7", "7"]}}),
    ],
)
def test_default_formats_are_read(caller: Caller, source: str, told: dict[str, object]) -> None:
    """K11, K16."""
    one = caller.held()
    ids = {"request": {"headers": {"x-reservation-id": one}}} if source == "kong" else {"reservation_id": one}
    assert caller.logs({**ids, **told}, source=source)["accepted"] == 1
    assert caller.balance() == (993, 0)


@pytest.mark.parametrize(("text", "usage"), [("7", 7), ("0, 7", 7), ("7, 0", 7), ("-", None), ("7, x", None), ("0", 0)])
def test_of_several_usages_the_last_that_tells_anything_counts(text: str, usage: int | None) -> None:
    assert read_usages(text) == usage


@pytest.mark.parametrize(
    ("accepted", "gzip"),
    [
        (b"gzip", True),
        (b"br, GZIP;q=0.5", True),
        (b"gzip;q=0, identity", False),
        (b"gzip; q=0.000", False),
        (b"gzip;Q=0", False),
        (b"notgzip", False),
        (b"", False),
    ],
)
def test_gzip_is_asked_for_only_where_it_is_accepted(accepted: bytes, gzip: bool) -> None:
    """K13."""
    assert accepts_gzip(accepted) is gzip
