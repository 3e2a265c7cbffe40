"""`dry_run`: the answer that would be given and what it would come to, with nothing written and no key used up."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.api.sidecar import Api, balances
from tests.api.with_a_store import WAYS, at_noon
from tests.partition import dump


@pytest.fixture(params=WAYS)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Api]:
    """A sidecar with a store, where a grant that came in would be durable first."""
    with at_noon(Api, request, tmp_path) as api:
        yield api


def tried(api: Api, path: str, body: dict[str, Any], method: str = "POST") -> dict[str, Any]:
    """What a dry run answers. It is proved to have written nothing to Redis."""
    before = _kept(api)
    answer = api.call(method, "/credits" + path, {**body, "dry_run": True}, key="k")
    assert (answer.status, answer.replayed) == (200, False), answer.raw
    assert _kept(api) == before
    found: dict[str, Any] = answer.body
    return found


def _kept(api: Api) -> object:
    """Everything in Redis but what processes say of themselves, and who sent last."""
    return {name: value for name, value in dump(api.client).items() if ":{p" in str(name)}


def effect(before: object, after: object, burns_at: int | None, next_grant_id: str | None) -> dict[str, object]:
    return {
        "available_before": before,
        "available_after": after,
        "burns_at": burns_at,
        "next_grant_id": next_grant_id,
    }


def test_credits_in(stored: Api) -> None:
    for n in (1, 3):
        stored.post("/add", {"user_id": "u", "amount": 10, "grant_id": f"g{n}", "priority": n})
    body = {"user_id": "u", "amount": 2.5, "grant_id": "g2", "priority": 2}

    found = tried(stored, "/add", body)

    assert found.pop("effect") == effect(20, Decimal("22.5"), 2, "g1")
    assert found == {
        "user_id": "u",
        "grant_id": "g2",
        "transaction_id": None,
        "amount": Decimal("2.5"),
        **balances("22.5"),
    }
    done = stored.post("/add", body, key="k")
    assert {**done, "transaction_id": None} == found
    again = stored.call("POST", "/credits/add", {"user_id": "u", "amount": 1, "grant_id": "g2", "dry_run": True})
    assert again.status == 409, "a refusal is the one that would be given"


def test_adjustments_of_both_signs(stored: Api) -> None:
    for n in (1, 2):
        stored.post("/add", {"user_id": "u", "amount": 10, "grant_id": f"g{n}", "priority": n})
    less = {"user_id": "u", "amount": -10, "reason": "r"}

    assert tried(stored, "/adjust", less)["effect"] == effect(20, 10, None, "g2")
    assert tried(stored, "/adjust", {**less, "grant_id": "g2"})["effect"] == effect(20, 10, None, "g1")
    assert tried(stored, "/adjust", {**less, "amount": -20})["effect"] == effect(20, 0, None, None)
    assert tried(stored, "/adjust", {**less, "amount": 1, "grant_id": "new"})["effect"] == effect(20, 21, 3, "g1")
    members = stored.refused(
        409, "adjustment-exceeds-credits", "POST", "/adjust", {**less, "amount": -21, "dry_run": True}
    )
    assert members["left"] == 20


def test_debt_is_paid_before_anything_burns(api: Api) -> None:
    api.call("PATCH", "/credits/users/u", {"overdraft_limit": 10})
    api.post("/deduct", {"user_id": "u", "amount": 5, "shortfall": "overdraft"})
    of_debt = tried(api, "/add", {"user_id": "u", "amount": 5, "grant_id": "g"})
    assert (of_debt["effect"], of_debt["debt"]) == (effect(0, 0, None, None), 0)
    assert tried(api, "/add", {"user_id": "u", "amount": 7, "grant_id": "g"})["effect"] == effect(0, 2, 1, "g")


def test_a_refund_and_a_void(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 10, "grant_id": "g"})
    charge = api.post("/deduct", {"user_id": "u", "amount": 4})["transaction_id"]

    back = tried(api, "/refund", {"user_id": "u", "transaction_id": charge})
    assert (back["amount"], back["left"], back["effect"]) == (4, 0, effect(6, 10, None, None))
    gone = tried(api, "/grants/u/g/void", {})
    assert (gone["voided"], gone["transaction_id"], gone["effect"]) == (6, None, effect(6, 0, None, None))


def test_plans(stored: Api) -> None:
    for name, limit in (("basic", 100), ("pro", 500)):
        plan = {"plan_id": name, "name": name, "credit_limit": limit, "price": 1, "billing_period": "monthly"}
        stored.post("/plans", plan, status=201)
    one = tried(stored, "/subscriptions/u", {"plan_id": "basic"}, "PUT")
    assert (one["plan_id"], one["state"], one["effect"]["available_after"]) == ("basic", "active", 100)
    assert stored.get("/subscriptions/u")["items"] == []

    assert stored.call("PUT", "/credits/subscriptions/u", {"plan_id": "basic"}, key="k").status == 200
    before = stored.get("/subscriptions/u")
    assert "effect" not in before["items"][0]
    other = tried(stored, "/subscriptions/u/upgrade", {"plan_id": "pro"})
    assert (other["plan_id"], other["effect"]["available_before"], other["effect"]["available_after"]) == (
        "pro",
        100,
        500,
    )
    coming = tried(stored, "/subscriptions/u/upgrade", {"plan_id": "pro", "when": "period_end"})
    assert (coming["next_plan_id"], coming["effect"]["available_after"]) == ("pro", 100)
    assert stored.get("/subscriptions/u") == before
