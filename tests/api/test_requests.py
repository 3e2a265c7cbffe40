"""Requests that are not valid: which problem answers them, where it points, and that nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from meter.contract.call import Call
from meter.contract.calls import CALLS
from meter.contract.problems import PROBLEMS
from tests.api.sidecar import Api, problem_members

POST_ROUTES = (
    "/add",
    "/deduct",
    "/reservations",
    "/reservations/r/commit",
    "/reservations/r/release",
    "/reservations/r/extend",
    "/refund",
    "/batch",
    "/grants/u/g/void",
)

MALFORMED = [
    b"{",
    b'{"user_id":"u",}',
    b"{'user_id':'u'}",
    b"user_id=u&amount=1",
    b'{"user_id":"u","amount":1} x',
    b'{"user_id":"\xff","amount":1}',
    b'{"user_id":"u","description":"\\ud800","amount":1}',
    b'{"user_id":"u","description":"a\nb","amount":1}',
    '{"user_id":"u","amount":1}'.encode("utf-16"),
    b"\xef\xbb\xbf{}",
    b'{"amount":01}',
    b'{"metadata":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"amount":' + b"9" * 5000 + b"}",
    b"\x00",
]


def test_what_is_no_json_is_400(api: Api) -> None:
    for n, content in enumerate(MALFORMED):
        for path in POST_ROUTES if n < 2 else ("/add",):
            members = problem_members(api.call("POST", "/credits" + path, content=content), 400, "malformed-json")
            assert [error["pointer"] for error in members["errors"]] == [""]
    assert api.entries() == []


def test_json_that_is_no_object_is_a_field_error_at_the_root(api: Api) -> None:
    for content in (b"[]", b"null", b'"text"', b"1", b"true"):
        for path in POST_ROUTES:
            answer = api.call("POST", "/credits" + path, content=content)
            assert [e["pointer"] for e in problem_members(answer, 422, "validation-error")["errors"]] == [""]
    assert api.entries() == []


def test_an_unknown_field_is_refused_with_a_pointer_to_it(api: Api) -> None:
    required: dict[str, dict[str, object]] = {
        "/add": {"user_id": "u", "amount": 1},
        "/deduct": {"user_id": "u", "amount": 1},
        "/reservations": {"user_id": "u", "amount": 1},
        "/refund": {"user_id": "u", "transaction_id": "t"},
        "/batch": {"operations": [{"op": "deduct", "user_id": "u", "amount": 0}]},
    }
    for path in POST_ROUTES:
        members = api.refused(422, "validation-error", "POST", path, {**required.get(path, {}), "ammount/~": 1})
        assert [error["pointer"] for error in members["errors"]] == ["/ammount~1~0"]
    assert api.entries() == []


def test_every_fault_of_a_body_is_named(api: Api) -> None:
    body = {
        "user_id": "a b",
        "amount": -1,
        "priority": "10",
        "expires_at": "tomorrow",
        "description": 5,
        "grant_id": "",
    }
    members = api.refused(422, "validation-error", "POST", "/add", body)
    assert {error["pointer"] for error in members["errors"]} == {f"/{name}" for name in body}
    assert all(error["detail"] for error in members["errors"])
    missing = api.refused(422, "validation-error", "POST", "/add")
    assert {error["pointer"] for error in missing["errors"]} == {"/user_id", "/amount"}


@pytest.mark.parametrize(
    ("path", "field", "wrong"),
    [
        ("/add", "priority", [1.5, "1", -1, 1_000_000, True, None, [1]]),
        ("/add", "description", [5, True, [], "x" * 501]),
        ("/add", "metadata", ["text", 5, [], {"x": "y" * 1024}, {"n": 2**64}, {"n": [-(2**63) - 1]}]),
        ("/add", "grant_id", ["", "a b", "a/b", "ü", "{", "x" * 129, 5, "a\n"]),
        ("/deduct", "shortfall", ["no", "REJECT", "", None, 1, True]),
        ("/reservations", "ttl_seconds", [0, -1, "60", True, [60]]),
        ("/reservations", "reservation_id", ["", "a b", "a/b", 5, "r\r\n"]),
        ("/reservations/r/commit", "over", ["all", None, 1]),
        ("/reservations/r/extend", "add_amount", [-1, "x", None]),
        ("/batch", "atomic", [1, "true", None]),
        ("/batch", "operations", [{}, "x", None]),
    ],
)
def test_a_wrong_type_or_value_points_at_its_field(api: Api, path: str, field: str, wrong: list[object]) -> None:
    required: dict[str, Any] = {"user_id": "u", "amount": 1} if path in ("/add", "/deduct", "/reservations") else {}
    if path == "/batch":
        required = {"operations": [{"op": "deduct", "user_id": "u", "amount": 1}]}
    for value in wrong:
        members = api.refused(422, "validation-error", "POST", path, {**required, field: value})
        assert {error["pointer"].split("/")[1] for error in members["errors"]} == {field}, value
    assert api.entries() == []


def test_numbers_that_json_does_not_have_are_refused_everywhere(api: Api) -> None:
    for number in ("NaN", "Infinity", "-Infinity", "1e999"):
        for method, path, body in (
            ("POST", "/credits/reservations", f'{{"user_id":"u","amount":1,"ttl_seconds":{number}}}'),
            ("POST", "/credits/reservations/r/extend", f'{{"ttl_seconds":{number}}}'),
            ("POST", "/credits/deduct", f'{{"user_id":"u","amount":0,"metadata":{{"deep":[{{"x":{number}}}]}}}}'),
            ("POST", "/credits/add", f'{{"user_id":"u","amount":1,"priority":{number}}}'),
            ("PUT", "/test-clock", f'{{"advance_seconds":{number}}}'),
            ("PATCH", "/credits/users/u", f'{{"metadata":{{"x":{number}}}}}'),
        ):
            problem_members(api.call(method, path, content=body.encode()), 422, "validation-error")
    assert api.entries() == []


HOSTILE = [
    "a b",
    "a\tb",
    "{p0}",
    "a}b",
    'a"b',
    "a'b",
    "a\\b",
    "a\r\nb",
    "a\n",
    "a;b",
    "a,b",
    "a\x00b",
    "a%b",
    "a~b",
    "a+b",
    "a*b",
    "ünï",
    "🙂",
    "",
    "x" * 129,
]


def test_a_hostile_user_id_is_refused_in_bodies_and_in_paths(api: Api) -> None:
    for user_id in HOSTILE:
        for path in ("/add", "/deduct", "/reservations"):
            members = api.refused(422, "validation-error", "POST", path, {"user_id": user_id, "amount": 1})
            assert [error["pointer"] for error in members["errors"]] == ["/user_id"]
        escaped = quote(user_id, safe="")
        for place in ("balance", "history", "expiring", "grants", "explain", "users"):
            answer = api.call("GET", f"/credits/{place}/{escaped}")
            assert answer.status in (404, 422) and answer.headers["content-type"] == "application/problem+json"
        answer = api.call("GET", f"/credits/reservations?user_id={escaped}")
        assert problem_members(answer, 422, "validation-error")["errors"][0]["pointer"] == "/user_id"
        assert api.call("PATCH", f"/credits/users/{escaped}", {"suspended": True}).status in (404, 422)
    assert api.client.hkeys(api.keys.accounts) == [b""] and api.entries() == []


def test_a_user_id_travels_percent_encoded_in_a_path(api: Api) -> None:
    for user_id in ("org/team/key-1", "/", "a//b", "A.b_c:d@e-9", "..", "x" * 128):
        api.post("/add", {"user_id": user_id, "amount": 7, "grant_id": "g"})
        escaped = "".join(f"%{byte:02X}" for byte in user_id.encode())
        for place in ("balance", "explain", "users"):
            read = api.get(f"/{place}/{escaped}")
            assert (read["user_id"], read["available"]) == (user_id, 7)
        assert [item["grant_id"] for item in api.get(f"/grants/{escaped}")["items"]] == ["g"]
        assert [item["user_id"] for item in api.get(f"/history/{escaped}")["items"]] == [user_id]
        assert api.patch(f"/users/{escaped}", {"overdraft_limit": 1})["user_id"] == user_id
        assert api.post(f"/grants/{escaped}/g/void")["voided"] == 7


def test_another_media_type_is_415(api: Api) -> None:
    content = b'{"user_id":"u","amount":1}'
    for content_type in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "json",
        "",
    ):
        answer = api.call("POST", "/credits/add", content=content, headers={"content-type": content_type})
        assert problem_members(answer, 415, "unsupported-media-type") == {}
    assert api.entries() == []


def test_every_json_media_type_is_taken(api: Api) -> None:
    content = b'{"user_id":"u","amount":1}'
    for content_type in ("application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"):
        answer = api.call("POST", "/credits/add", content=content, headers={"content-type": content_type})
        assert answer.status == 200
    assert api.http.post("/credits/deduct", content=content).status_code == 415


def test_an_empty_body_is_an_empty_object_whatever_its_type(api: Api) -> None:
    for headers in ({}, {"content-type": "text/plain"}):
        answer = api.call("POST", "/credits/deduct", content=b"", headers=headers)
        pointers = {error["pointer"] for error in problem_members(answer, 422, "validation-error")["errors"]}
        assert pointers == {"/user_id", "/amount"}


def test_a_body_beyond_the_limit_is_413_however_it_is_sent(api: Api) -> None:
    def chunks(size: int) -> Iterator[bytes]:
        yield b'{"user_id":"u","amount":1,"description":"'
        for _ in range(size // 1000):
            yield b"x" * 1000
        yield b'"}'

    large = b"".join(chunks(300_000))
    for content in (large, chunks(300_000)):
        answer = api.call("POST", "/credits/add", content=content)
        assert problem_members(answer, 413, "body-too-large") == {}
    fits = b'{"user_id":"u","amount":1' + b" " * (262_144 - 26) + b"}"
    assert len(fits) == 262_144
    assert api.call("POST", "/credits/add", content=fits).status == 200
    assert api.call("POST", "/credits/add", content=fits + b" ").status == 413
    assert api.call("POST", "/credits/add", content=iter([fits[:99], fits[99:]])).status == 200
    assert api.available("u") == 2


def test_a_path_that_is_none_is_404(api: Api) -> None:
    for path in ("/nothing", "/credits/", "/credits/nothing", "/credits/add/x", "/credits/reservations/r/nothing"):
        for method in ("GET", "POST"):
            assert problem_members(api.call(method, path), 404, "not-found") == {}


def test_another_method_is_405_and_names_those_there_are(api: Api) -> None:
    for method, path, allowed in (
        ("GET", "/credits/add", {"POST"}),
        ("DELETE", "/credits/deduct", {"POST"}),
        ("PUT", "/credits/reservations", {"GET", "HEAD", "POST"}),
        ("POST", "/credits/balance/u", {"GET", "HEAD"}),
        ("POST", "/credits/users/u", {"GET", "HEAD", "PATCH"}),
        ("DELETE", "/credits/reservations/r", {"GET", "HEAD"}),
        ("PATCH", "/credits/reservations/r/commit", {"POST"}),
        ("POST", "/test-clock", {"GET", "HEAD", "PUT"}),
        ("POST", "/livez", {"GET", "HEAD"}),
        ("OPTIONS", "/credits/add", {"POST"}),
    ):
        answer = api.call(method, path)
        assert problem_members(answer, 405, "method-not-allowed") == {}
        assert set(answer.headers["allow"].split(", ")) == allowed


def test_head_answers_as_get_without_the_body(api: Api) -> None:
    for path in ("/livez", "/readyz", "/credits/balance/u"):
        got, head = api.call("GET", path), api.call("HEAD", path)
        assert (head.status, head.raw) == (200, b"")
        assert head.headers["content-length"] == str(len(got.raw))
    assert api.call("HEAD", "/credits/add").status == 405


def test_a_query_parameter_that_is_unknown_twice_or_wrong_is_a_field_error(api: Api) -> None:
    wrong = {
        "/grants/u?limit=0": "/limit",
        "/grants/u?limit=501": "/limit",
        "/grants/u?limit=x": "/limit",
        "/grants/u?limit=": "/limit",
        "/grants/u?state=open": "/state",
        "/grants/u?stat=all": "/stat",
        "/grants/u?limit=1&limit=2": "",
        "/explain/u?amount=1&amount=1": "",
        "/explain/u?amount=": "/amount",
        "/reservations": "/user_id",
        "/reservations?user_id=u&state=closed": "/state",
    }
    for path, pointer in wrong.items():
        members = api.refused(422, "validation-error", "GET", path)
        assert [error["pointer"] for error in members["errors"]] == [pointer], path


def test_every_problem_has_a_page_that_says_what_to_do(api: Api) -> None:
    assert len(PROBLEMS) > 20
    for slug, kind in PROBLEMS.items():
        page = api.call("GET", f"/problems/{slug}")
        assert page.status == 200
        assert page.body == {
            "type": f"/problems/{slug}",
            "title": kind.title,
            "status": kind.status,
            "code": kind.code,
            "remedy": kind.remedy,
        }
    assert problem_members(api.call("GET", "/problems/none"), 404, "not-found") == {}


def test_plans_are_announced_but_not_there(api: Api) -> None:
    assert api.call("POST", "/credits/plans", {"name": "Pro"}).status in (200, 201, 422, 501)


def test_c14_a_whole_number_is_one_however_it_is_written(api: Api) -> None:
    """JSON has one kind of number, and by JSON Schema 7.0 is an integer."""
    api.call("POST", "/credits/add", content=b'{"user_id":"u","amount":1,"grant_id":"g","priority":7.0}')
    assert api.get("/grants/u")["items"][0]["priority"] == 7
    for text in ("1e999999", "-1e999999", "1e-999999", "NaN", "Infinity"):
        body = f'{{"user_id":"u","amount":1,"priority":{text}}}'.encode()
        assert api.call("POST", "/credits/add", content=body).status == 422


@pytest.mark.parametrize("text", ["1e12", "1000000000000.0", "1E+12", "1000000000000"])
def test_c14_the_largest_whole_number_is_one_however_it_is_written(api: Api, text: str) -> None:
    body = f'{{"user_id":"u","usage":{{"model":"big","input":{text}}}}}'.encode()
    problem_members(api.call("POST", "/credits/quote", content=body), 422, "unknown-model")  # it was read


@pytest.mark.parametrize("call", [call for call in CALLS if call.query is None], ids=lambda call: call.name)
def test_p6_a_call_without_parameters_refuses_one_instead_of_passing_over_it(api: Api, call: Call) -> None:
    """P6: who asks for version 1 of a rate card, or for a balance of last year, must not be told of today's."""
    path = call.prefix + call.path.format_map(Named())
    refused = api.call(call.method, f"{path}?version=1&at=2020-01-01T00:00:00Z", {} if call.body else None)
    assert [error["pointer"] for error in problem_members(refused, 422, "validation-error")["errors"]] == [
        "/version",
        "/at",
    ]


class Named(dict[str, str]):
    """Any member of a path."""

    def __missing__(self, name: str) -> str:
        return "x"
