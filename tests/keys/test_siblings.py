"""What lies beside the acceptance cases: batches, rotation, repeats, pages, other ways in."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.api.sidecar import problem_members
from tests.keys.conftest import Counter, mistyped

ROOT = Path(__file__).parents[2]


def test_the_first_hour_is_four_calls(counter: Counter) -> None:
    """H40: the four calls as README has them, then what a request asks for."""
    section = (ROOT / "README.md").read_text().partition("## The first hour")[2]
    calls = re.findall(r"curl -X ([A-Z]+) http://localhost:8000(\S+) -H \S+ \S+ \\\n +-d '(.*)'", section)
    assert len(calls) == 4
    answers = [counter.call(method, path, json.loads(body)) for method, path, body in calls]
    assert [answer.status for answer in answers] == [200, 200, 200, 201]
    text = answers[-1].body["key"]

    usage = {"model": "gpt-4o", "input": 1000, "max_output": 500}
    held = counter.reserve(text, usage)
    assert (held.status, held.body["amount"]) == (201, Decimal("0.0075"))
    done = counter.post(
        f"/reservations/{held.body['reservation_id']}/commit", {"usage": {"input": 1000, "output": 320}}
    )
    assert done["charged"] == Decimal("0.0057")
    balance = counter.call("GET", "/me/balance", headers={"authorization": f"Bearer {text}"})
    assert balance.body["available"] == Decimal("4.9943")
    asked = {"api_key": text, "usage": {"model": "gpt-4o", "output": 100_000}}
    refused = counter.refused(402, "budget-reached", "POST", "/deduct", asked)
    [violation] = refused["violations"]
    assert (violation["rule"], violation["user_id"], violation["id"]) == ("budget", "user-1", "daily")


def test_items_of_a_batch_are_asked_for_by_keys_of_their_own(counter: Counter) -> None:
    mine, other = counter.issue("u")["key"], counter.issue("acme/alice", models=["gpt-4o"])["key"]
    counter.add("acme/alice", 5)
    usage = {"model": "gpt-4o", "input": 1000}
    operations: list[Any] = [
        {"op": "deduct", "api_key": mine, "amount": 1},
        {"op": "deduct", "api_key": mistyped(mine), "amount": 1},
        {"op": "reserve", "api_key": other, "usage": {**usage, "max_output": 1}, "reservation_id": "h"},
        {"op": "deduct", "api_key": other, "usage": {**usage, "model": "mini"}},
        {"op": "deduct", "user_id": "u", "amount": 1},
    ]

    results = counter.post("/batch", {"operations": operations})["results"]
    assert [result["status"] for result in results] == [200, 401, 201, 403, 200]
    assert [results[n]["user_id"] for n in (0, 2, 4)] == ["u", "acme/alice", "u"]
    undone = counter.post("/batch", {"operations": operations[:2], "atomic": True})["results"]
    assert [result["status"] for result in undone] == [424, 401]
    assert counter.available("u") == 3
    both = {"op": "deduct", "user_id": "u", "api_key": mine, "amount": 1}
    counter.refused(422, "validation-error", "POST", "/batch", {"operations": [both]})


def test_a_rotated_key_works_up_to_the_last_millisecond_of_its_overlap(counter: Counter) -> None:
    old = counter.issue("acme/alice", name="laptop", models=["gpt-4o"])
    counter.add("acme/alice", 5)
    usage = {"model": "gpt-4o", "input": 10, "max_output": 1}
    new = counter.post(f"/keys/{old['key_id']}/rotate", {"overlap_seconds": 60}, status=201)

    same = ("user_id", "name", "models", "scopes", "expires_at")
    assert [new[member] for member in same] == [old[member] for member in same]
    assert (new["rotated_from"], new["key_id"] != old["key_id"]) == (old["key_id"], True)
    assert [counter.reserve(key["key"], usage).status for key in (old, new)] == [201, 201]
    counter.advance(59.999)
    assert counter.reserve(old["key"], usage).status == 201
    counter.advance(0.001)
    counter.invalid(counter.reserve(old["key"], usage))
    assert counter.reserve(new["key"], usage).status == 201
    counter.refused(409, "key-over", "POST", f"/keys/{old['key_id']}/rotate", {})
    at_once = counter.post(f"/keys/{new['key_id']}/rotate", {}, status=201)
    counter.invalid(counter.reserve(new["key"], usage))
    assert counter.reserve(at_once["key"], usage).status == 201
    changes = [row["key_id"] for row in counter.get("/history/acme%2Falice?kind=key")["items"]]
    assert changes == [new["key_id"], at_once["key_id"], old["key_id"], new["key_id"], old["key_id"]]


def test_a_text_is_in_no_answer_but_the_first(counter: Counter) -> None:
    first, again = (counter.call("POST", "/credits/keys", {"user_id": "u"}, key="k") for _ in range(2))
    assert (first.status, again.status, again.replayed, again.body["key"]) == (201, 201, True, None)
    assert {**first.body, "key": None} == again.body
    path = f"/credits/keys/{first.body['key_id']}/rotate"
    rotated, same = (counter.call("POST", path, {"overlap_seconds": 5}, key="r") for _ in range(2))
    assert (rotated.body["key"] is not None, same.body["key"]) == (True, None)
    assert counter.reserve(rotated.body["key"]).status == 201
    everything = "\n".join(
        str(counter.get(path)) for path in ("/keys", "/events", "/history/u", f"/history/u?reference={'k'}")
    )
    assert first.body["key"] not in everything and rotated.body["key"] not in everything


def test_what_is_changed_holds_for_the_next_call(counter: Counter) -> None:
    made = counter.issue("u")

    assert counter.reserve(made["key"]).status == 201
    changed = counter.patch(f"/keys/{made['key_id']}", {"scopes": ["read:self"], "name": "read"})
    assert (changed["scopes"], changed["name"]) == (["read:self"], "read")
    assert problem_members(counter.reserve(made["key"]), 403, "key-not-allowed") == {"scope": "spend"}
    counter.patch(f"/keys/{made['key_id']}", {"scopes": ["spend"], "expires_at": "2030-01-01T12:00:01Z"})
    assert counter.reserve(made["key"]).status == 201
    counter.advance(1)
    counter.invalid(counter.reserve(made["key"]))
    counter.refused(409, "key-over", "PATCH", f"/keys/{made['key_id']}", {"expires_at": None})
    past = {"user_id": "u", "expires_at": "2030-01-01T12:00:01Z"}
    assert counter.refused(422, "validation-error", "POST", "/keys", past)["errors"][0]["pointer"] == "/expires_at"


def test_revoking_twice_is_revoking_once(counter: Counter) -> None:
    made = counter.issue("u")

    first, second = (counter.post(f"/keys/{made['key_id']}/revoke", {"reason": "lost"}) for _ in range(2))
    assert first == second
    assert len(counter.get("/history/u?kind=key")["items"]) == 2
    assert counter.get("/history/u?kind=key&limit=1")["items"][0]["description"] == "lost"


def test_all_keys_are_listed_once_page_by_page(counter: Counter) -> None:
    ids = [counter.issue(f"u/{n % 3}")["key_id"] for n in range(25)]

    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = counter.get(f"/keys?limit=7&cursor={cursor}")
        found += [item["key_id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert sorted(found) == sorted(ids)
    own = counter.get("/keys?user_id=u/1&limit=500")["items"]
    assert {item["user_id"] for item in own} == {"u/1"} and len(own) == 8
    page = counter.get("/keys?user_id=u/1&limit=2")
    counter.refused(422, "validation-error", "GET", f"/keys?user_id=u/2&cursor={page['next_cursor']}")


@pytest.mark.parametrize(
    "text", ["", "mk_", "mk_test_", "sk-of-a-provider", "mk_test_\r\nx-user-id: v", "é" * 60, "x" * 200]
)
def test_a_text_that_is_no_key_is_refused_without_a_trace(counter: Counter, text: str) -> None:
    answer = counter.call("POST", "/credits/deduct", {"api_key": text, "amount": 1})

    if text:
        counter.invalid(answer)
        assert text.encode() not in answer.raw
    else:
        problem_members(answer, 422, "validation-error")
    assert counter.available("u") == 5


def test_the_keys_of_who_is_anonymised_end(counter: Counter) -> None:
    if counter.folder is not None:
        return  # nobody flushes, which it waits for
    text = counter.issue("gone")["key"]

    counter.post("/users/gone/anonymise")
    counter.invalid(counter.call("POST", "/credits/deduct", {"api_key": text, "amount": 0}))
    assert counter.get("/keys?user_id=gone")["items"] == []
    assert "gone" not in str(counter.get("/keys"))
