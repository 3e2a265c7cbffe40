"""API keys, from outside: each case by its id (docs/keys.md has the rules)."""

from __future__ import annotations

from decimal import Decimal

from tests.api.sidecar import problem_members
from tests.keys.conftest import Counter
from tests.rates.conftest import CARD

MINI = {"model": "mini", "input": 1000, "max_output": 100}
GPT = {"model": "gpt-4o", "input": 1000, "max_output": 500}


def test_h38_use_and_revoke(counter: Counter) -> None:
    made = counter.issue("u")
    text, key_id = made["key"], made["key_id"]
    assert text.startswith("mk_test_")
    held = counter.reserve(text)
    assert (held.status, held.body["user_id"], held.body["amount"]) == (201, "u", 1)

    [listed] = counter.get("/keys?user_id=u")["items"]
    assert listed == {**{name: value for name, value in made.items() if name != "key"}, "last_used": None}
    assert text not in str(listed)
    counter.settle()
    assert text.encode() not in counter.everything_in_redis()
    assert all(text.encode() not in path.read_bytes() for path in counter.store_files())

    assert counter.post(f"/keys/{key_id}/revoke")["state"] == "revoked"
    counter.invalid(counter.reserve(text))
    done = counter.post(f"/reservations/{held.body['reservation_id']}/commit")
    assert (done["charged"], done["available"]) == (1, 4)
    rows = counter.get("/history/u")["items"]
    assert [(row["kind"], row["key_id"]) for row in rows] == [
        ("commit", key_id),
        ("key", key_id),
        ("reserve", key_id),
        ("key", key_id),
        ("grant", None),
    ]


def test_h39_expiry(counter: Counter) -> None:
    text = counter.issue("u", expires_at="2030-01-01T12:01:00Z")["key"]
    counter.advance(59.999)
    held = counter.reserve(text)
    assert held.status == 201
    counter.advance(0.001)

    counter.invalid(counter.reserve(text))
    assert [item["state"] for item in counter.get("/keys?user_id=u")["items"]] == ["expired"]
    assert counter.post(f"/reservations/{held.body['reservation_id']}/commit")["charged"] == 1


def test_h39_models(counter: Counter) -> None:
    text = counter.issue("u", models=["gpt-4o"])["key"]

    assert problem_members(counter.reserve(text, MINI), 403, "key-not-allowed") == {"model": "mini"}
    assert problem_members(counter.reserve(text, 1), 403, "key-not-allowed") == {"model": None}
    held = counter.reserve(text, {**GPT, "model": "gpt-4o-2024-08-06"})
    assert (held.status, held.body["amount"]) == (201, Decimal("0.0075"))
    path = f"/reservations/{held.body['reservation_id']}/commit"
    used = {"input": 1000, "output": 320}
    assert counter.refused(403, "key-not-allowed", "POST", path, {"usage": {**used, "model": "mini"}}) == {
        "model": "mini"
    }
    assert counter.get(f"/reservations/{held.body['reservation_id']}")["state"] == "open"
    assert counter.post(path, {"usage": {**used, "model": "gpt-4o"}})["charged"] == Decimal("0.0057")


def test_h39_models_by_their_other_names(counter: Counter) -> None:
    """An alias stands for its model on either side, in the version that prices."""
    text = counter.issue("u", models=["gpt-4o-2024-08-06", "claude"])["key"]

    assert [counter.reserve(text, {**GPT, "model": name}).status for name in ("gpt-4o", "claude", "gem")] == [
        201,
        201,
        403,
    ]
    models = {**CARD, "gem": {**CARD["gem"], "aliases": ["claude-2"]}, "claude": {**CARD["claude"], "aliases": ["c"]}}
    assert counter.call("PUT", "/credits/rate-cards/default", {"models": models}).status == 200
    assert [counter.reserve(text, {**GPT, "model": name}).status for name in ("c", "claude-2")] == [201, 403]
