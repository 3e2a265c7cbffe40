"""Reservations: made, read, extended, committed, released and ended, with every member of every answer."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.api.sidecar import Api, balances

IN_FIVE_MINUTES = "2023-11-14T22:18:20.000Z"
T0 = "2023-11-14T22:13:20.000Z"


@pytest.fixture
def funded(api: Api) -> Api:
    """User u has 100 credits."""
    api.post("/add", {"user_id": "u", "amount": 100, "grant_id": "g"})
    return api


def reserve(api: Api, amount: object = 10, **members: object) -> dict[str, Any]:
    """The answer of a reserve with the id r, or another one."""
    body = {"user_id": "u", "amount": amount, "reservation_id": "r", **members}
    answer: dict[str, Any] = api.post("/reservations", body, status=201)
    return answer


def test_reserve_answers_when_the_hold_ends(funded: Api) -> None:
    reserved = funded.post("/reservations", {"user_id": "u", "amount": "10.5"}, status=201)
    assert reserved == {
        "reservation_id": reserved["reservation_id"],
        "user_id": "u",
        "amount": Decimal("10.5"),
        "expires_at": IN_FIVE_MINUTES,
        "expires_in": 300,
        **balances("89.5", "10.5"),
    }
    assert reserved["reservation_id"].startswith("r0_")
    assert funded.get("/balance/u") == {"user_id": "u", **balances("89.5", "10.5")}
    other = funded.post("/reservations", {"user_id": "u", "amount": 0, "ttl_seconds": 0.25}, status=201)
    assert (other["expires_in"], other["expires_at"]) == (Decimal("0.25"), "2023-11-14T22:13:20.250Z")


def test_a_reserve_beyond_the_available_is_402_and_changes_nothing(funded: Api) -> None:
    reserve(funded, 60)
    before = funded.entries()
    members = funded.refused(402, "insufficient-credits", "POST", "/reservations", {"user_id": "u", "amount": 41})
    assert members == {"user_id": "u", "required": 41, **balances(40, 60)}
    assert funded.entries() == before


def test_commit_charges_what_was_used_and_gives_the_rest_back(funded: Api) -> None:
    reserve(funded, 10)
    committed = funded.post("/reservations/r/commit", {"amount": "3.5", "description": "job 7"})
    assert committed == {
        "user_id": "u",
        "reservation_id": "r",
        "transaction_id": funded.entries()[-1].transaction_id,
        "charged": Decimal("3.5"),
        "released": Decimal("6.5"),
        "forfeited": 0,
        "uncovered": 0,
        "late": False,
        **balances("96.5"),
    }
    assert funded.entries()[-1].detail["description"] == "job 7"


def test_commit_without_a_body_charges_all_that_is_held(funded: Api) -> None:
    reserve(funded, 10)
    committed = funded.post("/reservations/r/commit")
    assert (committed["charged"], committed["released"], committed["available"]) == (10, 0, 90)


def test_commit_of_zero_charges_nothing_and_ends_the_hold(funded: Api) -> None:
    reserve(funded, 10)
    committed = funded.post("/reservations/r/commit", {"amount": 0})
    assert (committed["charged"], committed["released"], committed["available"]) == (0, 10, 100)
    assert funded.get("/reservations/r")["state"] == "committed"


def test_commit_beyond_the_hold_caps_refuses_or_overdraws_as_asked(funded: Api) -> None:
    funded.patch("/users/u", {"overdraft_limit": 5})
    reserve(funded, 60)
    body = {"amount": 110, "over": "reject"}
    members = funded.refused(402, "insufficient-credits", "POST", "/reservations/r/commit", body)
    assert members == {"user_id": "u", "required": 110, **balances(40, 60)}
    assert funded.get("/reservations/r")["state"] == "open"
    capped = funded.post("/reservations/r/commit", {"amount": 110})
    assert (capped["charged"], capped["uncovered"], capped["available"], capped["debt"]) == (100, 10, 0, 0)
    funded.post("/add", {"user_id": "u", "amount": 10})
    reserve(funded, 10, reservation_id="s")
    over = funded.post("/reservations/s/commit", {"amount": 16, "over": "overdraft"})
    assert (over["charged"], over["uncovered"], over["debt"]) == (15, 1, 5)


def test_release_gives_everything_back(funded: Api) -> None:
    reserve(funded, 10)
    released = funded.post("/reservations/r/release", {"metadata": {"why": "timeout"}})
    assert released == {
        "user_id": "u",
        "reservation_id": "r",
        "transaction_id": funded.entries()[-1].transaction_id,
        "released": 10,
        "forfeited": 0,
        **balances(100),
    }
    assert funded.entries()[-1].detail["metadata"] == {"why": "timeout"}


def test_p20_never_more_than_is_held(funded: Api) -> None:
    """P20, and a batch is no way around it."""
    funded.post("/reservations", {"user_id": "u", "amount": 30, "reservation_id": "r"}, status=201)
    body = {"amount": 31, "over": "hold_only"}
    members = funded.refused(402, "insufficient-credits", "POST", "/reservations/r/commit", body)
    assert (members["required"], members["reserved"]) == (31, 30)
    operation = {"op": "commit", "reservation_id": "r", **body}
    (result,) = funded.post("/batch", {"operations": [operation]})["results"]
    assert (result["status"], result["code"]) == (402, "INSUFFICIENT_CREDITS")
    assert funded.get("/reservations/r")["state"] == "open"
    assert funded.post("/reservations/r/commit", {"amount": 30, "over": "hold_only"})["charged"] == 30


def test_p20_all_or_nothing_on_debt(funded: Api) -> None:
    """P20: what the limit does not cover is a reason to refuse, if the caller says so."""
    funded.post("/deduct", {"user_id": "u", "amount": 10})
    funded.post("/reservations", {"user_id": "u", "amount": 40, "reservation_id": "r"}, status=201)
    funded.patch("/users/u", {"overdraft_limit": 20})
    body = {"amount": 120, "over": "overdraft", "shortfall": "reject"}
    funded.refused(402, "insufficient-credits", "POST", "/reservations/r/commit", body, key="k")
    funded.patch("/users/u", {"overdraft_limit": 50})
    committed = funded.post("/reservations/r/commit", body, key="k")
    assert (committed["charged"], committed["uncovered"], committed["debt"]) == (120, 0, 30)
    other = funded.call("POST", "/credits/reservations/r/commit", {**body, "shortfall": "partial"}, key="k")
    assert other.status == 422, "another body under the same key"


@pytest.mark.parametrize("member", [{"over": "hold"}, {"shortfall": "overdraft"}, {"shortfall": None}])
def test_p20_other_words_are_refused(funded: Api, member: dict[str, object]) -> None:
    funded.post("/reservations", {"user_id": "u", "amount": 1, "reservation_id": "r"}, status=201)
    funded.refused(422, "validation-error", "POST", "/reservations/r/commit", {"amount": 1, **member})


@pytest.mark.parametrize("verb", ["commit", "release"])
def test_a_repeated_verb_answers_as_the_first_time(funded: Api, verb: str) -> None:
    reserve(funded, 10)
    first = funded.call("POST", f"/credits/reservations/r/{verb}")
    funded.post("/deduct", {"user_id": "u", "amount": 1})
    again = funded.call("POST", f"/credits/reservations/r/{verb}")
    assert (first.status, first.replayed) == (200, False)
    assert (again.status, again.raw, again.replayed) == (200, first.raw, True)


@pytest.mark.parametrize("amount", ["10", 10.0, 10])
def test_a_commit_of_the_same_amount_however_written_is_a_repeat(funded: Api, amount: object) -> None:
    reserve(funded, 10)
    first = funded.call("POST", "/credits/reservations/r/commit")
    again = funded.call("POST", "/credits/reservations/r/commit", {"amount": amount})
    assert (again.raw, again.replayed) == (first.raw, True)


def test_another_verb_or_amount_on_a_finished_reservation_is_409_with_state_and_charge(funded: Api) -> None:
    reserve(funded, 10, reservation_id="c")
    reserve(funded, 10, reservation_id="l")
    funded.post("/reservations/c/commit", {"amount": 4})
    funded.post("/reservations/l/release")
    before = funded.entries()
    committed = {"user_id": "u", "state": "committed", "charged": 4}
    for verb, body in (("commit", {"amount": 5}), ("commit", None), ("release", None), ("extend", {"add_amount": 1})):
        assert funded.refused(409, "reservation-committed", "POST", f"/reservations/c/{verb}", body) == committed
    released = {"user_id": "u", "state": "released", "charged": 0}
    for verb in ("commit", "extend"):
        assert funded.refused(409, "reservation-released", "POST", f"/reservations/l/{verb}") == released
    assert funded.entries() == before


@pytest.mark.parametrize("reservation_id", ["unknown", "r0_" + "x" * 22, "no%20id", "%7Bp0%7D", "x" * 129])
def test_an_unknown_reservation_is_404(funded: Api, reservation_id: str) -> None:
    path = f"/reservations/{reservation_id}"
    assert funded.refused(404, "reservation-not-found", "GET", path) == {}
    for verb in ("commit", "release", "extend"):
        assert funded.refused(404, "reservation-not-found", "POST", f"{path}/{verb}") == {}


def test_a_hold_ends_by_itself_and_a_late_commit_is_charged_directly(funded: Api) -> None:
    reserve(funded, 10, ttl_seconds=60)
    funded.advance(60)
    assert funded.get("/balance/u") == {"user_id": "u", **balances(100)}
    gone = {"user_id": "u", "state": "expired", "charged": 0}
    assert funded.refused(409, "reservation-expired", "POST", "/reservations/r/release") == gone
    assert funded.refused(409, "reservation-expired", "POST", "/reservations/r/extend", {"ttl_seconds": 9}) == gone
    funded.advance(3600)
    late = funded.call("POST", "/credits/reservations/r/commit", {"amount": 7})
    assert (late.status, late.body["late"], late.body["charged"], late.body["released"]) == (200, True, 7, 0)
    assert funded.available("u") == 93
    assert funded.call("POST", "/credits/reservations/r/commit", {"amount": 7}).raw == late.raw


def test_a_commit_later_than_the_grace_is_409(funded: Api) -> None:
    reserve(funded, 10, ttl_seconds=60)
    funded.advance(60 + 3600.001)
    members = funded.refused(409, "reservation-expired", "POST", "/reservations/r/commit", {"amount": 7})
    assert members == {"user_id": "u", "state": "expired", "charged": 0}
    assert funded.available("u") == 100


def test_what_returns_to_a_grant_that_ended_is_forfeited_and_shown(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 10, "expires_at": "2023-11-14T22:14:20Z"})
    reserve(api, 6, ttl_seconds=600)
    reserve(api, 4, ttl_seconds=600, reservation_id="s")
    api.advance(60)
    committed = api.post("/reservations/r/commit", {"amount": 1})
    assert (committed["charged"], committed["released"], committed["forfeited"]) == (1, 5, 5)
    released = api.post("/reservations/s/release")
    assert (released["released"], released["forfeited"], released["available"]) == (4, 4, 0)


def test_extend_counts_from_now_and_can_add_credits(funded: Api) -> None:
    reserve(funded, 10, ttl_seconds=60)
    funded.advance(30)
    extended = funded.post("/reservations/r/extend", {"ttl_seconds": 100, "add_amount": 5})
    assert extended == {
        "reservation_id": "r",
        "user_id": "u",
        "amount": 15,
        "expires_at": "2023-11-14T22:15:30.000Z",
        "expires_in": 100,
        **balances(85, 15),
    }
    more = funded.post("/reservations/r/extend", {"add_amount": "0.5", "description": "more"})
    assert (more["amount"], more["expires_in"], more["available"]) == (Decimal("15.5"), 100, Decimal("84.5"))
    members = funded.refused(402, "insufficient-credits", "POST", "/reservations/r/extend", {"add_amount": 85})
    assert members == {"user_id": "u", "required": 85, **balances("84.5", "15.5")}
    assert funded.post("/reservations/r/extend")["amount"] == Decimal("15.5")


def test_a_reservation_is_read_in_every_state(funded: Api) -> None:
    for name in ("open", "kept", "back", "gone"):
        reserve(funded, 10, reservation_id=name, ttl_seconds=30 if name == "gone" else 300)
    funded.post("/reservations/kept/commit", {"amount": 4})
    funded.post("/reservations/back/release")
    funded.advance(40)
    read = {name: funded.get(f"/reservations/{name}") for name in ("open", "kept", "back", "gone")}
    now = balances(86, 10)
    assert read["open"] == {
        "user_id": "u",
        "reservation_id": "open",
        "state": "open",
        "amount": 10,
        "charged": 0,
        "expires_at": IN_FIVE_MINUTES,
        **now,
    }
    assert [(read[name]["state"], read[name]["charged"]) for name in ("kept", "back", "gone")] == [
        ("committed", 4),
        ("released", 0),
        ("expired", 0),
    ]


def test_a_chosen_reservation_id_is_an_idempotency_key(funded: Api) -> None:
    body = {"user_id": "u", "amount": 10, "reservation_id": "order:1"}
    first = funded.call("POST", "/credits/reservations", body)
    again = funded.call("POST", "/credits/reservations", body)
    assert (again.status, again.raw, again.replayed) == (201, first.raw, True)
    others: list[dict[str, object]] = [{"amount": 11}, {"user_id": "v"}, {"ttl_seconds": 299}, {"metadata": {}}]
    for changed in others:
        funded.refused(422, "idempotency-key-reused", "POST", "/reservations", {**body, **changed})
    funded.post("/reservations/order:1/release")
    finished = funded.call("POST", "/credits/reservations", body)
    assert (finished.raw, finished.replayed) == (first.raw, True)
    assert funded.available("u") == 100


def test_a_refused_reserve_does_not_use_its_id_up(api: Api) -> None:
    body = {"user_id": "u", "amount": 10, "reservation_id": "r"}
    api.refused(402, "insufficient-credits", "POST", "/reservations", body)
    api.post("/add", {"user_id": "u", "amount": 10})
    assert api.call("POST", "/credits/reservations", body).status == 201


@pytest.mark.parametrize("ttl_seconds", [86_400.001, 1e300])
@pytest.mark.parametrize("path", ["/reservations", "/reservations/r/extend"])
def test_a_time_to_live_beyond_the_longest_is_a_field_error(funded: Api, ttl_seconds: float, path: str) -> None:
    reserve(funded)
    before = funded.entries()
    body: dict[str, object] = {"ttl_seconds": ttl_seconds}
    if path == "/reservations":
        body |= {"user_id": "u", "amount": 1}
    members = funded.refused(422, "validation-error", "POST", path, body)
    assert [error["pointer"] for error in members["errors"]] == ["/ttl_seconds"]
    assert funded.entries() == before


def test_the_longest_time_to_live_is_allowed(funded: Api) -> None:
    assert reserve(funded, ttl_seconds=86_400)["expires_at"] == "2023-11-15T22:13:20.000Z"


def test_an_open_list_has_the_next_to_end_first_and_every_member(funded: Api) -> None:
    reserve(funded, 1, reservation_id="last", ttl_seconds=300)
    reserve(funded, 2, reservation_id="first", ttl_seconds=30)
    reserve(funded, 3, reservation_id="done")
    funded.post("/reservations/done/commit")
    page = funded.get("/reservations?user_id=u&state=open")
    assert page == {
        "items": [
            {
                "reservation_id": name,
                "user_id": "u",
                "state": "open",
                "amount": amount,
                "charged": 0,
                "expires_at": expires_at,
                "created_at": T0,
            }
            for name, amount, expires_at in (("first", 2, "2023-11-14T22:13:50.000Z"), ("last", 1, IN_FIVE_MINUTES))
        ],
        "next_cursor": None,
    }
    funded.advance(30)
    assert [item["reservation_id"] for item in funded.get("/reservations?user_id=u")["items"]] == ["last"]
