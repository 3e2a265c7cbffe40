"""Credits in, credits out and the reads of an account: every member of every answer."""

from __future__ import annotations

from decimal import Decimal

from tests.api.sidecar import Api, balances

T0 = "2023-11-14T22:13:20.000Z"
HOUR_LATER = "2023-11-14T23:13:20.000Z"


def test_add_answers_the_grant_and_the_balances(api: Api) -> None:
    added = api.post("/add", {"user_id": "user-1", "amount": 100, "description": "Welcome bonus"})
    (entry,) = api.entries()
    grant_id = added["grant_id"]

    assert added == {
        "user_id": "user-1",
        "grant_id": grant_id,
        "transaction_id": entry.transaction_id,
        "amount": 100,
        **balances(100),
    }
    assert grant_id.startswith("g_")
    assert (entry.kind, entry.amount, entry.detail["description"]) == ("grant", 100_000_000, "Welcome bonus")


def test_the_calls_of_the_seed_readme_give_its_balances(api: Api) -> None:
    api.post("/add", {"user_id": "user-1", "amount": 100, "description": "Welcome bonus"})
    assert api.get("/balance/user-1") == {"user_id": "user-1", **balances(100)}
    api.post("/deduct", {"user_id": "user-1", "amount": 30})
    assert api.get("/balance/user-1") == {"user_id": "user-1", **balances(70)}


def test_deduct_answers_what_was_taken(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 100})
    deducted = api.post("/deduct", {"user_id": "u", "amount": 30.25})
    assert deducted == {
        "user_id": "u",
        "transaction_id": api.entries()[-1].transaction_id,
        "amount": Decimal("30.25"),
        "taken": Decimal("30.25"),
        "uncovered": 0,
        **balances("69.75"),
    }


def test_a_deduct_beyond_the_available_is_402_and_changes_nothing(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 10})
    before = api.entries()
    members = api.refused(402, "insufficient-credits", "POST", "/deduct", {"user_id": "u", "amount": "10.000001"})
    assert members == {"user_id": "u", "required": Decimal("10.000001"), **balances(10)}
    assert api.entries() == before


def test_a_deduct_of_zero_is_a_probe_that_writes_nothing(api: Api) -> None:
    probed = api.post("/deduct", {"user_id": "nobody", "amount": 0})
    assert probed == {
        "user_id": "nobody",
        "transaction_id": None,
        "amount": 0,
        "taken": 0,
        "uncovered": 0,
        **balances(0),
    }
    assert api.entries() == []


def test_partial_takes_what_is_there_and_nothing_there_is_402(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 4})
    body = {"user_id": "u", "amount": 10, "shortfall": "partial"}
    taken = api.post("/deduct", body)
    assert (taken["amount"], taken["taken"], taken["uncovered"], taken["available"]) == (10, 4, 6, 0)
    assert api.refused(402, "insufficient-credits", "POST", "/deduct", body)["required"] == 10


def test_overdraft_takes_debt_up_to_the_limit_and_new_credits_pay_it_first(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 4})
    body = {"user_id": "u", "amount": 10, "shortfall": "overdraft"}
    assert api.refused(402, "insufficient-credits", "POST", "/deduct", body) == {
        "user_id": "u",
        "required": 10,
        **balances(4),
    }
    api.patch("/users/u", {"overdraft_limit": 6})
    taken = api.post("/deduct", body)
    assert {name: taken[name] for name in ("taken", "uncovered", "available", "debt")} == {
        "taken": 10,
        "uncovered": 0,
        "available": 0,
        "debt": 6,
    }
    api.refused(402, "insufficient-credits", "POST", "/deduct", {**body, "amount": "0.000001"})
    assert api.post("/add", {"user_id": "u", "amount": 7})["available"] == 1
    assert api.get("/balance/u") == {"user_id": "u", **balances(1)}


def test_an_unknown_user_has_zeros(api: Api) -> None:
    assert api.get("/balance/never.heard-of") == {"user_id": "never.heard-of", **balances(0)}
    assert api.get("/grants/nobody") == {"items": [], "next_cursor": None}
    assert api.client.hkeys(api.keys.accounts) == [b""]


def test_a_chosen_grant_id_answers_the_same_call_again_and_refuses_another(api: Api) -> None:
    body = {"user_id": "u", "amount": 5, "grant_id": "welcome"}
    first = api.call("POST", "/credits/add", body)
    again = api.call("POST", "/credits/add", body)
    assert (first.status, again.status, again.raw, again.replayed) == (200, 200, first.raw, True)
    api.refused(422, "idempotency-key-reused", "POST", "/add", {**body, "amount": 6})
    members = api.refused(409, "grant-exists", "POST", "/add", body, key="another-operation")
    assert members == balances(5)
    assert api.post("/add", {**body, "user_id": "v"})["available"] == 5
    assert api.available("u") == 5


def test_grants_are_listed_in_burn_order_with_every_member(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 3, "grant_id": "never"})
    api.post("/add", {"user_id": "u", "amount": 2, "grant_id": "soon", "expires_at": HOUR_LATER})
    api.post("/add", {"user_id": "u", "amount": 1, "grant_id": "first", "priority": 0})
    api.post("/add", {"user_id": "u", "amount": 9, "grant_id": "later", "effective_at": HOUR_LATER})
    page = api.get("/grants/u")
    assert [item["grant_id"] for item in page["items"]] == ["first", "soon", "never", "later"]
    assert page["next_cursor"] is None
    assert page["items"][1] == {
        "grant_id": "soon",
        "amount": 2,
        "remaining": 2,
        "reserved": 0,
        "priority": 10,
        "effective_at": T0,
        "expires_at": HOUR_LATER,
        "created_at": T0,
        "source": "api",
        "state": "active",
        "rollover": None,
    }
    assert [item["state"] for item in page["items"]] == ["active", "active", "active", "scheduled"]
    assert (page["items"][0]["expires_at"], page["items"][3]["effective_at"]) == (None, HOUR_LATER)


def test_grants_that_are_over_are_listed_on_request_with_their_state(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 1, "grant_id": "spent", "priority": 0})
    api.post("/add", {"user_id": "u", "amount": 2, "grant_id": "over", "expires_at": HOUR_LATER})
    api.post("/add", {"user_id": "u", "amount": 3, "grant_id": "void"})
    api.post("/deduct", {"user_id": "u", "amount": 1})
    api.post("/grants/u/void/void")
    api.advance(3600)
    assert api.get("/grants/u") == api.get("/grants/u?state=live") == {"items": [], "next_cursor": None}
    states = {item["grant_id"]: item["state"] for item in api.get("/grants/u?state=all")["items"]}
    assert states == {"spent": "exhausted", "over": "expired", "void": "voided"}


def test_void_answers_what_was_free_and_leaves_holds_alone(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 10, "grant_id": "g"})
    api.post("/reservations", {"user_id": "u", "amount": 4, "reservation_id": "r"}, status=201)
    voided = api.post("/grants/u/g/void", {"description": "mistake", "metadata": {"by": "support"}})
    assert voided == {
        "user_id": "u",
        "grant_id": "g",
        "transaction_id": api.entries()[-1].transaction_id,
        "voided": 6,
        **balances(0, 4),
    }
    detail = api.entries()[-1].detail
    assert (detail["grant_id"], detail["description"], detail["metadata"]) == ("g", "mistake", {"by": "support"})
    assert api.post("/reservations/r/commit")["charged"] == 4


def test_a_grant_is_voided_once(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 10, "grant_id": "g"})
    api.post("/add", {"user_id": "u", "amount": 10, "grant_id": "e", "expires_at": HOUR_LATER})
    api.post("/grants/u/g/void")
    api.advance(3600)
    assert api.refused(409, "grant-over", "POST", "/grants/u/g/void") == {
        "user_id": "u",
        "state": "voided",
        **balances(0),
    }
    assert api.refused(409, "grant-over", "POST", "/grants/u/e/void")["state"] == "expired"
    assert api.refused(404, "grant-not-found", "POST", "/grants/u/unknown/void") == {}
    assert api.refused(404, "grant-not-found", "POST", "/grants/u/no%20id/void") == {}


def test_a_refund_gives_back_part_of_a_charge_and_never_more(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 10})
    charge = api.post("/deduct", {"user_id": "u", "amount": 8})["transaction_id"]
    refunded = api.post("/refund", {"user_id": "u", "transaction_id": charge, "amount": 3, "description": "sorry"})
    assert refunded == {
        "user_id": "u",
        "transaction_id": api.entries()[-1].transaction_id,
        "amount": 3,
        "forfeited": 0,
        "left": 5,
        **balances(5),
    }
    assert api.entries()[-1].detail == {"refund_of": charge, "forfeited": 0, "left": 5_000_000, "description": "sorry"}
    members = api.refused(
        409, "refund-exceeds-charge", "POST", "/refund", {"user_id": "u", "transaction_id": charge, "amount": 6}
    )
    assert members == {"user_id": "u", "left": 5, **balances(5)}
    rest = api.post("/refund", {"user_id": "u", "transaction_id": charge})
    assert (rest["amount"], rest["left"], rest["available"]) == (5, 0, 10)
    again = api.refused(409, "refund-exceeds-charge", "POST", "/refund", {"user_id": "u", "transaction_id": charge})
    assert again["left"] == 0


def test_a_refund_of_a_commit_goes_back_and_to_an_ended_grant_it_is_forfeited(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 5, "expires_at": HOUR_LATER})
    api.post("/reservations", {"user_id": "u", "amount": 5, "reservation_id": "r"}, status=201)
    charge = api.post("/reservations/r/commit", {"amount": 4})["transaction_id"]
    assert api.post("/refund", {"user_id": "u", "transaction_id": charge, "amount": 1})["forfeited"] == 0
    api.advance(3600)
    late = api.post("/refund", {"user_id": "u", "transaction_id": charge})
    assert (late["amount"], late["forfeited"], late["available"]) == (3, 3, 0)
    assert [entry.kind for entry in api.entries()][-2:] == ["refund", "grant_expired"]


def test_only_charges_of_that_user_are_refunded(api: Api) -> None:
    grant = api.post("/add", {"user_id": "u", "amount": 10})["transaction_id"]
    charge = api.post("/deduct", {"user_id": "u", "amount": 1})["transaction_id"]
    before = api.entries()
    api.refused(409, "not-refundable", "POST", "/refund", {"user_id": "u", "transaction_id": grant})
    for user_id, transaction_id in (("v", charge), ("u", charge + "0"), ("u", "0-9-x-1"), ("u", "9-2-x-1"), ("u", "t")):
        body = {"user_id": user_id, "transaction_id": transaction_id}
        assert api.refused(404, "transaction-not-found", "POST", "/refund", body) == {}
    assert api.entries() == before


def test_explain_tells_what_would_burn_and_changes_nothing(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 3, "grant_id": "second"})
    api.post("/add", {"user_id": "u", "amount": 2, "grant_id": "first", "priority": 1})
    api.post("/add", {"user_id": "u", "amount": 9, "grant_id": "later", "effective_at": HOUR_LATER})
    before = api.entries()
    assert api.get("/explain/u?amount=4") == {
        "user_id": "u",
        "amount": 4,
        "would": "ok",
        "violations": [],
        "levels": [],
        "short": 0,
        "burns": [{"grant_id": "first", "amount": 2}, {"grant_id": "second", "amount": 2}],
        "overdraft_limit": 0,
        "next_credits_at": HOUR_LATER,
        "next_credits_amount": 9,
        **balances(5),
    }
    short = api.get("/explain/u?amount=5.5")
    assert (short["would"], short["short"]) == ("insufficient", Decimal("0.5"))
    empty = api.get("/explain/nobody")
    assert (empty["would"], empty["burns"], empty["next_credits_at"], empty["next_credits_amount"]) == (
        "ok",
        [],
        None,
        0,
    )
    api.patch("/users/u", {"suspended": True})
    assert api.get("/explain/u?amount=1")["would"] == "suspended"
    assert len(api.entries()) == len(before) + 1


def test_patch_changes_what_is_named_and_makes_the_account(api: Api) -> None:
    changed = api.patch("/users/new", {"low_credit_thresholds": [5, "20.5", 5], "metadata": {"plan": "ü🙂", "n": 1.5}})
    assert changed == {
        "user_id": "new",
        "overdraft_limit": 0,
        "suspended": False,
        "low_credit_thresholds": [Decimal("20.5"), 5],
        **balances(0),
        "rate_card": None,
        "price_multiplier": None,
        "budgets": {},
        "rate_limits": {},
        "velocity": None,
        "pool": False,
        "use_pools": True,
        "metadata": {"plan": "ü🙂", "n": Decimal("1.5")},
    }
    changed = api.patch("/users/new", {"overdraft_limit": 2.5, "suspended": True})
    assert (changed["overdraft_limit"], changed["suspended"]) == (Decimal("2.5"), True)
    assert changed["low_credit_thresholds"] == [Decimal("20.5"), 5]
    assert api.get("/users/new") == changed
    cleared = api.patch("/users/new", {"low_credit_thresholds": [], "suspended": False})
    assert (cleared["low_credit_thresholds"], cleared["suspended"], cleared["overdraft_limit"]) == (
        [],
        False,
        Decimal("2.5"),
    )
    assert api.get("/users/nobody")["metadata"] is None


def test_a_suspended_account_spends_nothing_but_settles_its_holds(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 10})
    api.post("/reservations", {"user_id": "u", "amount": 4, "reservation_id": "r"}, status=201)
    api.patch("/users/u", {"suspended": True})
    for path, body in (
        ("/deduct", {"user_id": "u", "amount": 1}),
        ("/reservations", {"user_id": "u", "amount": 1}),
        ("/reservations/r/extend", {"add_amount": 1}),
    ):
        assert api.refused(403, "account-suspended", "POST", path, body) == balances(6, 4)
    assert api.post("/reservations/r/commit", {"amount": 3})["charged"] == 3
    assert api.post("/add", {"user_id": "u", "amount": 1})["available"] == 8


def test_an_account_takes_no_more_than_it_can_count_exactly(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": "9007199254.740991"})
    members = api.refused(422, "validation-error", "POST", "/add", {"user_id": "u", "amount": "0.000001"})
    assert [error["pointer"] for error in members["errors"]] == ["/amount"]
    assert api.available("u") == Decimal("9007199254.740991")
