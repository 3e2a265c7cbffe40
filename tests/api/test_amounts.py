"""Amounts on the wire: exact from the smallest to the largest, and refused with a pointer where they are not exact."""

from __future__ import annotations

from decimal import Decimal

import pytest

from tests.api.sidecar import Api, problem_members

UNITS_MAX = "9007199254.740991"

EXACT = {
    "1": 1,
    "0.000001": "0.000001",
    '"0.000001"': "0.000001",
    '"1.000000"': 1,
    "1e2": 100,
    "1.5E1": 15,
    "1e-6": "0.000001",
    "100000000": 100_000_000,  # 1e14 units, where Lua's own formatting turns to exponents
    "100000000.000001": "100000000.000001",
    "1e8": 100_000_000,
    "2251799813.685247": "2251799813.685247",  # the last that every double tells apart, and the next ones
    "2251799813.685249": "2251799813.685249",
    "4503599627.370497": "4503599627.370497",
    UNITS_MAX: UNITS_MAX,
    f'"{UNITS_MAX}"': UNITS_MAX,
    "9007199254.740990": "9007199254.740990",
    "9007199254740991e-6": UNITS_MAX,
}

REFUSED = [
    "9007199254.740992",
    '"9007199254.740992"',
    "1e14",
    "100000000000000",
    "9007199254740993",
    "1e308",
    "1e999999",
    "-1e999999",
    "-1",
    '"-1"',
    "-0.000001",
    "-9007199254.740991",
    "1.0000001",
    '"1.0000001"',
    "0.0000009",
    f'"1.{"0" * 31}1"',
    f'"9007199254.740991{"0" * 20}1"',
    "5e-324",
    '"1e3"',
    '"1E3"',
    '"0x10"',
    '"\\u0661"',
    '" 1"',
    '"+1"',
    '"1."',
    '".5"',
    '"1,5"',
    '"1_000"',
    '""',
    '"NaN"',
    '"Infinity"',
    "NaN",
    "Infinity",
    "-Infinity",
    "true",
    "false",
    "null",
    "[]",
    "[1]",
    "{}",
    f'"{"9" * 5000}"',
    f'"0.{"0" * 5000}1"',
    "9" * 4000,
]


def test_an_amount_is_taken_and_answered_exactly(api: Api) -> None:
    for n, (text, credits_) in enumerate(EXACT.items()):
        expected = Decimal(str(credits_))
        added = api.call("POST", "/credits/add", content=f'{{"user_id":"u{n}","amount":{text}}}'.encode())
        assert (added.status, added.body["amount"], added.body["available"]) == (200, expected, expected), added.raw
        assert api.available(f"u{n}") == expected
        deducted = api.call("POST", "/credits/deduct", content=f'{{"amount":{text},"user_id":"u{n}"}}'.encode())
        assert (deducted.status, deducted.body["taken"], deducted.body["available"]) == (200, expected, 0), deducted.raw
        assert [entry.amount for entry in api.entries()[-2:]] == [int(expected * 10**6)] * 2


def test_an_amount_that_is_none_is_a_field_error_and_nothing_is_written(api: Api) -> None:
    for text in REFUSED:
        for path in ("add", "deduct", "reservations"):
            answer = api.call("POST", f"/credits/{path}", content=f'{{"user_id":"u","amount":{text}}}'.encode())
            errors = problem_members(answer, 422, "validation-error")["errors"]
            assert [error["pointer"] for error in errors] == ["/amount"], text
            assert errors[0]["detail"] and len(answer.raw) < 1000
    assert api.entries() == []


def test_zero_is_refused_where_it_means_nothing_and_a_probe_elsewhere(api: Api) -> None:
    for text in ("0", "-0", "0.0", "-0.0", '"0"', '"-0"', "0e5"):
        added = api.call("POST", "/credits/add", content=f'{{"user_id":"u","amount":{text}}}'.encode())
        assert [error["pointer"] for error in problem_members(added, 422, "validation-error")["errors"]] == ["/amount"]
        probed = api.call("POST", "/credits/deduct", content=f'{{"user_id":"u","amount":{text}}}'.encode())
        assert (probed.status, probed.body["taken"]) == (200, 0)
        assert b"-0" not in probed.raw


def test_an_amount_too_large_for_a_double_leaves_the_rest_of_the_body_as_it_is(api: Api) -> None:
    body = (
        f'{{"user_id":"u","amount":{UNITS_MAX},"expires_at":"2030-01-01T00:00:00+01:00",'
        '"metadata":{"float":1.5,"list":[0.1,{"deep":2.25}],"int":3}}'
    )
    added = api.call("POST", "/credits/add", content=body.encode())
    assert (added.status, added.body["amount"]) == (200, Decimal(UNITS_MAX)), added.raw
    reserved = api.call(
        "POST", "/credits/reservations", content=f'{{"user_id":"u","amount":{UNITS_MAX},"ttl_seconds":1.5}}'.encode()
    )
    assert (reserved.status, reserved.body["expires_in"]) == (201, Decimal("1.5")), reserved.raw
    entry = api.entries()[0]
    assert entry.detail["expires_at"] == 1_893_452_400_000
    assert entry.detail["metadata"] == {"float": 1.5, "list": [0.1, {"deep": 2.25}], "int": 3}


def test_among_several_amounts_each_is_judged_by_its_own_text(api: Api) -> None:
    operations = '{"op":"deduct","user_id":"u","amount":%s},{"op":"deduct","user_id":"u","amount":%s}'
    for other in ("-1", "1e308", "1e999999", "Infinity", "9007199254.740992", '"x"', "null"):
        content = f'{{"operations":[{operations % (UNITS_MAX, other)}]}}'.encode()
        members = problem_members(api.call("POST", "/credits/batch", content=content), 422, "validation-error")
        assert [error["pointer"] for error in members["errors"]] == ["/operations/1/amount"]
    taken = api.call("POST", "/credits/batch", content=f'{{"operations":[{operations % (UNITS_MAX, "0")}]}}'.encode())
    assert [result["status"] for result in taken.body["results"]] == [402, 200]


@pytest.mark.parametrize("path", ["/users/u", "/explain/u?amount="])
def test_amounts_elsewhere_follow_the_same_rules(api: Api, path: str) -> None:
    for text in ("-1", "1.0000001", "9007199254.740992", "NaN"):
        if path.startswith("/users"):
            body = f'{{"overdraft_limit":{text},"low_credit_thresholds":[1,{text}]}}'.encode()
            answer = api.call("PATCH", "/credits" + path, content=body)
            pointers = ["/overdraft_limit", "/low_credit_thresholds/1"]
        else:
            answer = api.call("GET", f"/credits{path}{text}")
            pointers = ["/amount"]
        assert [error["pointer"] for error in problem_members(answer, 422, "validation-error")["errors"]] == pointers
    assert api.entries() == []
    assert api.patch("/users/u", {"overdraft_limit": UNITS_MAX})["overdraft_limit"] == Decimal(UNITS_MAX)
    assert api.get(f"/explain/u?amount={UNITS_MAX}")["short"] == Decimal(UNITS_MAX)
