"""P9: numbers are read from their digits, wherever a body, a query or a header has one, and in bounded time."""

from __future__ import annotations

from decimal import Decimal
from urllib.parse import quote

import pytest

from tests.api.sidecar import Api, problem_members

NO_AMOUNT = [
    "2147483647.9999999",  # the double next to it is 2147483648
    "0.9999999999999999999",
    "1.00000000000000000001",
    "1e-400",  # the double next to it is 0
    "1e-999999",
    "-1e-400",
    "1e400",
    "-1e400",
    "9007199254.7409915",
    "9007199254.740991000000000001",
    "99999999999999.999999999",
    "0." + "0" * 400 + "1",
    "1" + "0" * 400 + ".5",
    "1." + "0" * 20_000 + "1",
]
NO_NUMBER_AT_ALL = ["1e9999999999999999999", "1e-9999999999999999999", "-0e9999999999999999999"]
EXACT = {
    "1." + "0" * 400: "1",
    "1" + "0" * 20 + "e-20": "1",
    "0.000001" + "0" * 400: "0.000001",
    "1000000e-12": "0.000001",
    "2147483647.999999": "2147483647.999999",
    "0e-400": "0",
    "-0.0e400": "0",
    "0e999999": "0",
}


def pointers(api: Api, method: str, path: str, content: str) -> list[str]:
    answer = api.call(method, "/credits" + path, content=content.encode())
    return [error["pointer"] for error in problem_members(answer, 422, "validation-error")["errors"]]


@pytest.mark.parametrize("text", NO_AMOUNT)
def test_p9_a_number_that_is_no_amount_is_refused_by_its_digits(api: Api, text: str) -> None:
    for path in ("/add", "/deduct", "/reservations"):
        assert pointers(api, "POST", path, f'{{"user_id":"u","amount":{text}}}') == ["/amount"]
    probe = '{"op":"deduct","user_id":"u","amount":0}'
    batch = f'{{"operations":[{probe},{{"op":"reserve","user_id":"u","amount":{text}}}]}}'
    assert pointers(api, "POST", "/batch", batch) == ["/operations/1/amount"]
    assert pointers(api, "POST", "/reservations/r/commit", f'{{"amount":{text}}}') == ["/amount"]
    assert pointers(api, "POST", "/reservations/r/extend", f'{{"add_amount":{text}}}') == ["/add_amount"]
    limits = f'{{"overdraft_limit":{text},"low_credit_thresholds":[1,{text}]}}'
    assert pointers(api, "PATCH", "/users/u", limits) == ["/overdraft_limit", "/low_credit_thresholds/1"]
    plan = f'{{"name":"n","credit_limit":{text},"price":1,"billing_period":"daily"}}'
    assert pointers(api, "POST", "/plans", plan) == ["/credit_limit"]
    rollover = f'"rollover":{{"max_amount":{text},"valid_days":1}}'
    assert pointers(api, "POST", "/plans", plan.replace(text, "1").replace('"price"', rollover + ',"price"')) == [
        "/rollover/max_amount"
    ]
    asked = api.call("GET", f"/credits/explain/u?amount={quote(text)}")
    assert problem_members(asked, 422, "validation-error")["errors"][0]["pointer"] == "/amount"
    assert api.entries() == []


@pytest.mark.parametrize("text", NO_NUMBER_AT_ALL)
def test_p9_an_exponent_beyond_every_decimal_is_refused(api: Api, text: str) -> None:
    assert pointers(api, "POST", "/deduct", f'{{"user_id":"u","amount":{text}}}') == [""]
    assert pointers(api, "POST", "/deduct", f'{{"user_id":"u","amount":1,"metadata":{{"n":{text}}}}}') == [""]
    assert api.entries() == []


def test_p9_digits_that_say_nothing_more_are_taken(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": "9000000000"})
    for text, credits_ in EXACT.items():
        taken = api.call("POST", "/credits/deduct", content=f'{{"user_id":"u","amount":{text}}}'.encode())
        assert (taken.status, taken.body["amount"]) == (200, Decimal(credits_)), text


def test_p9_a_time_to_live_is_judged_by_its_digits(api: Api) -> None:
    def ttl(text: str) -> str:
        return f'{{"user_id":"u","amount":0,"reservation_id":"r{text}","ttl_seconds":{text}}}'

    for text in ("86400.00000000000000001", "1e400", "1e999999", "-1e-400", "0e-400", "1e9999"):
        assert pointers(api, "POST", "/reservations", ttl(text)) == ["/ttl_seconds"]
        assert pointers(api, "POST", "/reservations/r/extend", f'{{"ttl_seconds":{text}}}') == ["/ttl_seconds"]
    for text, seconds in (("86400.0", 86400), ("1e-400", "0.001"), ("1.0005", "1"), ("86399.9999", 86400)):
        made = api.call("POST", "/credits/reservations", content=ttl(text).encode())
        assert (made.status, made.body["expires_in"]) == (201, Decimal(str(seconds))), made.raw
    for text in ("1e400", "1e999999", "-1e-400"):
        moved = api.call("PUT", "/test-clock", content=f'{{"advance_seconds":{text}}}'.encode())
        assert problem_members(moved, 422, "validation-error")["errors"][0]["pointer"] == "/advance_seconds"


def test_p9_a_price_is_kept_digit_by_digit_or_refused(api: Api) -> None:
    """Written out, 1e-999999999999999999 would fill the memory."""
    body = '{{"name":"n","credit_limit":1,"price":{},"billing_period":"daily"}}'
    for text in ("1e-400", "1e-999999999999999999", "1e400", "1e999999999999999999", "-1e-400", "999999999999.5e1"):
        assert pointers(api, "POST", "/plans", body.format(text)) == ["/price"]
    for text in ("9.999999999999999999999999", "19.990", "999999999999.99"):
        answer = api.call("POST", "/credits/plans", content=body.format(text).encode())
        if answer.status == 201:  # with a store
            assert f'"price":{text},'.encode() in answer.raw
        else:
            assert problem_members(answer, 503, "metering-unavailable") == {"reason": "store"}


def test_p9_metadata_has_the_doubles_of_json_however_the_amount_is_written(api: Api) -> None:
    metadata = '{"f":1.50,"e":1e2,"tiny":1e-400,"long":3.14159265358979323846,"zero":-0.0,"int":18446744073709551615}'
    api.post("/add", {"user_id": "u", "amount": 10})
    for amount in ("1", "1.0", "1." + "0" * 40):
        content = f'{{"user_id":"u","amount":{amount},"metadata":{metadata}}}'
        assert api.call("POST", "/credits/deduct", content=content.encode()).status == 200
    found = [entry.detail["metadata"] for entry in api.entries()[1:]]
    assert found == [{"f": 1.5, "e": 100.0, "tiny": 0.0, "long": 3.141592653589793, "zero": 0.0, "int": 2**64 - 1}] * 3
    for text in ("1e400", "-1e999", "18446744073709551616", "NaN"):
        answer = api.call(
            "POST", "/credits/deduct", content=f'{{"user_id":"u","amount":1,"metadata":{{"n":{text}}}}}'.encode()
        )
        assert answer.status in {400, 422}, answer.raw
    assert len(api.entries()) == 4


HOSTILE = {
    "a member twice": b'{"user_id":"u","amount":1,"amount":2}',
    "a member twice, once by an escape": b'{"user_id":"u","amount":1,"\\u0061mount":2}',
    "a member of metadata twice": b'{"user_id":"u","amount":1,"metadata":{"a":{"b":1,"b":1}}}',
    "a member of a batch twice": b'{"operations":[{"op":"deduct","user_id":"u","amount":1,"user_id":"v"}]}',
    "deep lists": b'{"user_id":"u","amount":1,"metadata":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "deep objects": b'{"user_id":"u","amount":1,"metadata":' + b'{"a":' * 40_000 + b"1" + b"}" * 40_000 + b"}",
    "deep and cut off": b"[" * 200_000,
    "deep behind an exact amount": b'{"amount":9007199254.740991,"metadata":{"a":'
    + b"[" * 5_000
    + b"]" * 5_000
    + b"}}",
    "an integer of 200,000 digits": b'{"user_id":"u","amount":' + b"9" * 200_000 + b"}",
    "a zero in front": b'{"user_id":"u","amount":01}',
    "half a surrogate pair": b'{"user_id":"u","amount":1,"description":"\\udc00\\ud800"}',
    "a surrogate in UTF-8": b'{"user_id":"u","amount":1,"description":"\xed\xa0\x80"}',
    "UTF-8 that is too long": b'{"user_id":"u","amount":1,"description":"\xc0\x80"}',
    "a comment": b'{"user_id":"u",/* */"amount":1}',
    "two values": b'{"user_id":"u","amount":1}{}',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_p9_a_text_that_readers_take_differently_is_refused_whole(api: Api, kind: str) -> None:
    for path in ("/add", "/deduct", "/reservations", "/batch"):
        answer = api.call("POST", "/credits" + path, content=HOSTILE[kind])
        errors = problem_members(answer, 400, "malformed-json")["errors"]
        assert [error["pointer"] for error in errors] == [""]
        assert errors[0]["detail"] and len(answer.raw) < 1000
    assert api.entries() == []


@pytest.mark.parametrize(
    "query", ["history/u?limit=1_0", "history/u?limit=%2B1", "expiring/u?days=1_0", "expiring/u?days=%201"]
)
def test_p9_a_number_of_a_query_is_read_from_its_digits_as_json_has_them(api: Api, query: str) -> None:
    api.refused(422, "validation-error", "GET", f"/{query}")
    assert api.get(query.partition("?")[0].join(("/", "?limit=10")))["items"] == []
