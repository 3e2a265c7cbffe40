"""`POST /credits/adjust`: credits of either sign, with a reason, once for each key, a row of their own kind."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.api.sidecar import Api, balances
from tests.api.with_a_store import WAYS, at_noon


@pytest.fixture(params=WAYS)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Api]:
    """A sidecar with a store, where credits come in durable first."""
    with at_noon(Api, request, tmp_path) as api:
        yield api


def asked(amount: object, **more: object) -> dict[str, object]:
    return {"user_id": "u", "amount": amount, "reason": "why", **more}


def test_both_signs_and_what_they_answer(api: Api) -> None:
    given = api.post("/adjust", asked(10, grant_id="amends", reference="case-7"))
    taken = api.post("/adjust", asked("-2.5"))
    more, less = api.entries()
    assert given == {
        "user_id": "u",
        "grant_id": "amends",
        "transaction_id": more.transaction_id,
        "amount": 10,
        **balances(10),
    }
    assert taken == {
        "user_id": "u",
        "transaction_id": less.transaction_id,
        "amount": Decimal("-2.5"),
        **balances("7.5"),
    }
    assert [(row["kind"], row["amount"], row["description"]) for row in api.get("/history/u?kind=adjust")["items"]] == [
        ("adjust", Decimal("-2.5"), "why"),
        ("adjust", 10, "why"),
    ]
    (grant,) = api.get("/grants/u")["items"]
    assert (grant["source"], grant["remaining"], grant["expires_at"]) == ("adjust", Decimal("7.5"), None)


def test_no_more_than_is_free_is_taken(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 5, "grant_id": "g"})
    members = api.refused(409, "adjustment-exceeds-credits", "POST", "/adjust", asked("-5.000001"))
    assert members == {"user_id": "u", "left": 5, **balances(5)}
    api.refused(404, "grant-not-found", "POST", "/adjust", asked(-1, grant_id="h"))
    api.post("/grants/u/g/void", {})
    api.refused(409, "grant-over", "POST", "/adjust", asked(-1, grant_id="g"))


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (asked(0), "/amount"),
        (asked("-0.0"), "/amount"),
        ({"user_id": "u", "amount": 1}, "/reason"),
        (asked(1, reason=""), "/reason"),
        (asked(1, description="x"), "/description"),
    ],
)
def test_what_is_no_adjustment(api: Api, body: dict[str, object], pointer: str) -> None:
    answer = api.call("POST", "/credits/adjust", body)
    assert answer.status == 422 and f'"pointer":"{pointer}"' in answer.raw.decode().replace('": "', '":"')


def test_a_key_is_that_of_one_body_whichever_its_sign(stored: Api) -> None:
    first = stored.call("POST", "/credits/adjust", asked(10), key="up")
    down = stored.call("POST", "/credits/adjust", asked(-1), key="down")
    assert (first.status, down.status) == (200, 200)
    for key, body, answer in (("up", asked(10), first), ("down", asked(-1), down)):
        again = stored.call("POST", "/credits/adjust", body, key=key)
        assert (again.raw, again.replayed) == (answer.raw, True)
    for key, body in (("up", asked(-1)), ("down", asked(10)), ("up", asked(11)), ("down", asked(-2))):
        stored.refused(422, "idempotency-key-reused", "POST", "/adjust", body, key=key)
    assert stored.get("/balance/u")["available"] == 9
