"""Promo codes over HTTP: what they give, to whom, how often, and what nobody is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from tests.api.sidecar import Answer, problem_members
from tests.codes.conftest import Booth


def test_h41_a_code_gives_a_grant_once_and_says_which(booth: Booth) -> None:
    made = booth.make("spring-26", 5, 2, valid_days=30, description="Spring")
    assert made["code"] == "SPRING-26" and made["code_id"].startswith("code_")

    first = booth.redeem("u", " Spring-26 ", reference="shop-1")

    assert first.status == 200, first.raw
    grant_id = first.body["grant_id"]
    assert (first.body["amount"], first.body["available"]) == (5, 5)
    (grant,) = booth.get("/grants/u")["items"]
    assert (grant["grant_id"], grant["source"], grant["expires_at"]) == (grant_id, "code", "2030-01-31T12:00:00.000Z")
    booth.settle()
    (row,) = booth.get("/history/u")["items"]
    assert (row["kind"], row["reference"], row["description"]) == ("grant", "shop-1", "Spring")
    again = problem_members(booth.redeem("u", "SPRING-26"), 409, "code-redeemed")
    assert again == {"grant_id": grant_id}
    assert booth.available("u") == 5
    assert booth.code(made["code_id"])["redeemed"] == 1


def test_h41_each_refusal_says_why_and_gives_nothing(booth: Booth) -> None:
    made = booth.make("FEW", max_total=1)
    booth.make("LATER", starts_at="2030-01-02T00:00:00Z", ends_at="2030-01-03T00:00:00Z")
    assert booth.redeem("u", "few").status == 200

    assert problem_members(booth.redeem("v", "few"), 409, "code-used-up") == {}
    assert problem_members(booth.redeem("v", "nope"), 404, "code-not-found") == {}
    assert problem_members(booth.redeem("v", "later"), 404, "code-not-found") == {}
    booth.advance(43_200)  # its first millisecond
    assert booth.redeem("v", "later").status == 200
    booth.advance(86_400)  # and the first at which it has ended
    assert problem_members(booth.redeem("w", "later"), 409, "code-ended") == {}
    stopped = booth.post(f"/codes/{made['code_id']}/stop", {"reason": "shared"})
    assert stopped["state"] == "stopped"
    assert problem_members(booth.redeem("x", "few"), 409, "code-ended") == {}
    assert problem_members(booth.redeem("u", "few"), 409, "code-redeemed")["grant_id"], "who had it hears that"
    assert [booth.available(user) for user in "uvwx"] == [5, 5, 0, 0]


def test_a_code_may_be_for_several_times_of_one_user(booth: Booth) -> None:
    booth.make("TWICE", 3, 10, max_per_user=2)

    grants = [booth.redeem("u", "twice").body["grant_id"] for _ in range(2)]

    assert len(set(grants)) == 2
    assert problem_members(booth.redeem("u", "twice"), 409, "code-redeemed") == {"grant_id": grants[1]}
    assert booth.available("u") == 6


def test_a_repeated_call_is_answered_as_the_first_time(booth: Booth) -> None:
    booth.make()
    first = booth.redeem("u", key="k-1")
    booth.post("/deduct", {"user_id": "u", "amount": 2})

    again = booth.redeem("u", key="k-1")

    assert (again.status, again.body, again.replayed) == (200, first.body, True)
    assert problem_members(booth.redeem("v", key="k-1"), 422, "idempotency-key-reused") == {}
    assert booth.redeem("u", "other", key="k-1").status == 422, "another code is another body"
    assert booth.available("u") == 3
    made = {"amount": 1, "max_total": 1}
    texts = [booth.post("/codes", made, status=201, key="k-2")["code"] for _ in range(2)]
    assert texts[0] and texts[1] is None, "the text is told once"


def test_no_text_of_a_code_is_kept_anywhere(booth: Booth) -> None:
    booth.make("SECRETSPRING")
    drawn = booth.make(None)["code"]
    for text in ("SECRETSPRING", drawn):
        assert booth.redeem("u", text.lower(), key=f"key-{text[:2]}").status == 200
    booth.redeem("u", "SECRETSUMMER")
    booth.settle()

    kept = [path.read_bytes() for path in booth.store_files()]

    for text in ("SECRETSPRING", drawn, "SECRETSUMMER"):
        for form in (text, text.lower()):
            assert form.encode() not in b"".join([booth.everything_in_redis(), *kept])
    assert "SECRETSPRING" not in str(booth.get("/codes")) and "secretspring" not in str(booth.get("/events?limit=500"))


def test_a_text_is_one_code_only(booth: Booth) -> None:
    made = booth.make("SPRING")

    answer = booth.refused(409, "code-exists", "POST", "/codes", {"code": "spring", "amount": 1, "max_total": 1})

    assert answer == {"code_id": made["code_id"]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": 0},
        {"amount": -1},
        {"max_total": 0},
        {"max_total": 1.5},
        {"max_per_user": 0},
        {"max_per_user": 101},
        {"valid_days": 0},
        {"code": "a b"},
        {"code": "ß" * 5},
        {"code": "ab"},
        {"code": "x" * 65},
        {"ends_at": "2030-01-01T12:00:00Z"},
        {"starts_at": "2031-01-01T00:00:00Z", "ends_at": "2030-06-01T00:00:00Z"},
        {"amount": "1.0000001"},
        {"unknown": 1},
    ],
)
def test_a_body_that_makes_no_sense_makes_no_code(booth: Booth, wrong: dict[str, object]) -> None:
    body = {"code": "SPRING", "amount": 1, "max_total": 1, **wrong}

    assert "errors" in booth.refused(422, "validation-error", "POST", "/codes", body)
    assert booth.get("/codes")["items"] == []


@pytest.mark.parametrize("text", ["", "ﬁre10", " ", "\N{LATIN SMALL LETTER DOTLESS I}", "*", "x" * 201])
def test_what_is_no_text_of_a_code_is_none_that_there_is(booth: Booth, text: str) -> None:
    booth.make("FIRE10")

    assert booth.redeem("u", text).status in (404, 422)
    assert booth.available("u") == 0


def test_who_guesses_waits_and_others_do_not(booth: Booth) -> None:
    """Also the right code is refused meanwhile, or one would go on guessing."""
    booth.make()
    for n in range(10):
        assert booth.redeem("u", f"GUESS{n}").status == 404

    refused = booth.redeem("u")

    assert problem_members(refused, 429, "rate-limited") == {"retry_after_ms": 6000}
    assert refused.headers["retry-after"] == "6"
    assert booth.redeem("v").status == 200
    booth.advance(6)
    assert booth.redeem("u").status == 200
    assert booth.available("u") == 5


def test_codes_are_listed_page_by_page(booth: Booth) -> None:
    ids = [booth.make(None)["code_id"] for _ in range(5)]
    found, cursor = list[str](), ""
    while True:
        page = booth.get(f"/codes?limit=2&cursor={cursor}")
        found += [one["code_id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = page["next_cursor"]
    assert sorted(found) == sorted(ids) and len(found) == 5


def test_an_account_that_has_no_room_redeems_nothing(booth: Booth) -> None:
    """The refusal comes before the store counts, so that the code is there for another try."""
    made = booth.make(amount="9007199254.740991", max_total=5)
    booth.add("u", 1)

    assert problem_members(booth.redeem("u"), 422, "validation-error")["errors"][0]["pointer"] == "/amount"

    assert booth.code(made["code_id"])["redeemed"] == 0
    assert booth.available("u") == 1
    assert booth.redeem("v").status == 200


def test_what_it_gives_may_be_for_certain_things_only(booth: Booth) -> None:
    made = booth.make(only=["model:gpt-4o*", "feature:images", "feature:images"])
    assert made["only"] == booth.code(made["code_id"])["only"] == ["feature:images", "model:gpt-4o*"]
    booth.redeem("u")
    [grant] = booth.get("/grants/u")["items"]
    assert grant["only"] == ["feature:images", "model:gpt-4o*"]
    assert booth.get("/balance/u")["restricted"] == 5
    tagged = {"user_id": "u", "amount": 2, "tags": ["feature:images"]}
    problem_members(booth.call("POST", "/credits/deduct", {**tagged, "tags": ["other"]}), 402, "insufficient-credits")
    assert booth.post("/deduct", tagged)["usable"] == 3


def test_an_account_with_grants_for_eight_other_things_redeems_nothing(booth: Booth) -> None:
    made = booth.make(only=["ninth"])
    for number in range(8):
        booth.post("/add", {"user_id": "u", "amount": 1, "only": [f"thing{number}"]})
    assert problem_members(booth.redeem("u"), 422, "validation-error")["errors"][0]["pointer"] == "/only"
    assert booth.code(made["code_id"])["redeemed"] == 0


def test_a_hundred_and_fifty_race_for_a_hundred(booth: Booth) -> None:
    """H42: exactly 100 get it, and the code says so."""
    made = booth.make(max_total=100, amount=1)

    with ThreadPoolExecutor(30) as pool:
        answers: list[Answer] = list(pool.map(lambda n: booth.redeem(f"racer-{n}"), range(150)))

    assert sorted({answer.status for answer in answers}) == [200, 409]
    assert sum(answer.status == 200 for answer in answers) == 100
    assert {answer.body["code"] for answer in answers if answer.status == 409} == {"CODE_USED_UP"}
    assert booth.code(made["code_id"])["redeemed"] == 100
    assert sum(booth.available(f"racer-{n}") for n in range(150)) == Decimal(100)


def test_one_user_who_races_against_itself_gets_what_one_user_may(booth: Booth) -> None:
    made = booth.make(max_total=100, amount=1, max_per_user=3)

    with ThreadPoolExecutor(12) as pool:
        answers: list[Any] = list(pool.map(lambda _: booth.redeem("u").status, range(40)))

    assert (answers.count(200), answers.count(409)) == (3, 37)
    assert (booth.available("u"), booth.code(made["code_id"])["redeemed"]) == (Decimal(3), 3)
