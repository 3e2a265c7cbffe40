"""Rate limits and concurrency, from outside: each case by its id."""

from __future__ import annotations

from typing import Any

from tests.api.sidecar import Answer
from tests.limits.conftest import Shop, reached


def limited(answer: Answer) -> Any:
    """The only violation of what a limit refused."""
    assert (answer.status, answer.body["type"]) == (429, "/problems/rate-limited"), answer.raw
    [violation] = answer.body["violations"]
    return violation


def test_h33_sixty_a_minute(shop: Shop) -> None:
    shop.add("u", 1000)
    shop.limits(rpm={"kind": "requests", "limit": 60})
    told = [shop.deduct(1) for _ in range(60)]
    assert {one.status for one in told} == {200}
    assert [one.body["rate_limit"]["remaining"] for one in told] == list(range(59, -1, -1))
    assert told[-1].body["rate_limit"] == {
        "id": "rpm",
        "kind": "requests",
        "limit": 60,
        "remaining": 0,
        "per_seconds": 60,
        "resets_in": 60,
    }
    refused = shop.deduct(1)
    violation = {"rule": "rate_limit", "user_id": "u", "id": "rpm", "limit": 60, "per_seconds": 60}
    assert limited(refused) == {**violation, "retry_after_ms": 1000}
    assert (refused.headers["ratelimit-policy"], refused.headers["ratelimit"]) == ('"rpm";q=60;w=60', '"rpm";r=0;t=1')
    assert refused.headers["retry-after"] == "1" and shop.available("u") == 940
    shop.advance(1)
    assert [shop.deduct(1).status for _ in range(2)] == [200, 429]
    shop.advance(30)
    assert [shop.deduct(1).status for _ in range(31)] == [200] * 30 + [429]


def test_h34_uneven_rate(shop: Shop) -> None:
    shop.add("u", 1000)
    shop.limits(l={"kind": "requests", "limit": 7})
    assert [shop.deduct(1).status for _ in range(7)] == [200] * 7
    assert limited(shop.deduct(1))["retry_after_ms"] == 8572
    shop.advance(8.571)
    assert shop.deduct(1).status == 429
    shop.advance(0.001)
    assert shop.deduct(1).status == 200


def test_h35_a_402_takes_nothing(shop: Shop) -> None:
    shop.add("u", 10)
    shop.set("u", budgets={"daily": {"limit": 1, "window": "day"}}, rate_limits={"l": {"kind": "requests", "limit": 2}})
    for _ in range(10):
        assert reached(shop.deduct(5)) == [("u", "daily")]
    assert [shop.deduct(0.5).status for _ in range(2)] == [200, 200]
    both = shop.deduct(0.5)
    assert (both.status, both.body["type"]) == (402, "/problems/budget-reached")
    assert [one["rule"] for one in both.body["violations"]] == ["budget", "rate_limit"]
    assert both.headers["retry-after"] == "43200", "the longest wait of all"


def test_h36_concurrency(shop: Shop) -> None:
    shop.add("u", 100)
    shop.limits(c={"kind": "concurrent", "limit": 2})
    first, second = shop.reserve(1, ttl_seconds=60), shop.reserve(1, ttl_seconds=60)
    refused = shop.ask("/reservations", user_id="u", amount=1)
    assert limited(refused) == {"rule": "concurrency", "user_id": "u", "id": "c", "limit": 2, "used": 2}
    assert shop.release(first).status == 200
    shop.reserve(1, ttl_seconds=60)
    assert shop.commit(second, 1).status == 200
    shop.reserve(1, ttl_seconds=60)
    assert shop.deduct(1).status == 200, "which opens nothing"
    shop.advance(60)
    shop.reserve(1, ttl_seconds=60)
    shop.reserve(1, ttl_seconds=60)
    assert limited(shop.ask("/reservations", user_id="u", amount=1))["rule"] == "concurrency"


def test_concurrency_of_a_level_counts_holds_of_all_below(shop: Shop) -> None:
    """Ended ones elsewhere are settled first."""
    for user in ("acme/a", "acme/b"):
        shop.add(user, 100)
    shop.limits("acme", c={"kind": "concurrent", "limit": 1})
    shop.reserve(1, "acme/a", ttl_seconds=60)
    assert limited(shop.ask("/reservations", user_id="acme/b", amount=1))["user_id"] == "acme"
    shop.advance(60)
    shop.reserve(1, "acme/b")


def test_h37_replays_and_batch(shop: Shop) -> None:
    shop.add("u", 100)
    shop.limits(l={"kind": "requests", "limit": 3})
    body = {"user_id": "u", "amount": 1}
    keyed = [shop.call("POST", "/credits/deduct", body, key="k") for _ in range(5)]
    assert [one.status for one in keyed] == [200] * 5 and [one.replayed for one in keyed] == [False] + [True] * 4
    assert [shop.deduct(1).status for _ in range(3)] == [200, 200, 429]
    shop.add("v", 100)
    shop.limits("v", l={"kind": "requests", "limit": 2})
    batch = [{"op": "deduct", "user_id": "v", "amount": 1}] * 3
    results = shop.post("/batch", {"operations": batch})["results"]
    assert [one["status"] for one in results] == [200, 200, 429]
    shop.advance(60)
    results = shop.post("/batch", {"operations": batch, "atomic": True})["results"]
    assert [one["status"] for one in results] == [424, 424, 429]
    assert [shop.deduct(1, "v").status for _ in range(3)] == [200, 200, 429], "what was not applied took nothing"


def test_what_counts_as_a_request(shop: Shop) -> None:
    """A reserve and a deduct; not a commit, an extension or a deduct of nothing."""
    shop.add("u", 100)
    shop.limits(l={"kind": "requests", "limit": 2})
    hold = shop.reserve(1)
    assert shop.ask(f"/reservations/{hold}/extend", add_amount=1).status == 200
    assert [shop.deduct(0).status for _ in range(5)] == [200] * 5
    assert shop.commit(hold, 1).status == 200
    assert [shop.deduct(1).status for _ in range(2)] == [200, 429]


def test_a_burst_of_one_spaces_evenly_and_an_edit_keeps_what_was_let_through(shop: Shop) -> None:
    shop.add("u", 100)
    shop.limits(l={"kind": "requests", "limit": 6, "burst": 1})
    assert [shop.deduct(1).status for _ in range(2)] == [200, 429]
    shop.advance(10)
    assert [shop.deduct(1).status for _ in range(2)] == [200, 429]
    shop.limits(l={"limit": 60})
    assert shop.user()["rate_limits"] == {
        "l": {"kind": "requests", "limit": 60, "per_seconds": 60, "burst": 1, "source": "user"}
    }
    assert limited(shop.deduct(1))["retry_after_ms"] <= 10_000
    assert shop.limits(l=None)["rate_limits"] == {}
    assert shop.deduct(1).status == 200


def test_a_credit_refusal_comes_before_a_limit(shop: Shop) -> None:
    """By choice: a client that repeats on 429 must not meet a 402 then."""
    shop.add("u", 1)
    shop.limits(l={"kind": "requests", "limit": 1})
    assert shop.deduct(1).status == 200
    refused = shop.deduct(1)
    assert (refused.status, refused.body["type"]) == (402, "/problems/insufficient-credits")
    assert [one["rule"] for one in refused.body["violations"]] == ["credits", "rate_limit"]
    assert "retry-after" not in refused.headers


def test_a_commit_and_a_release_are_never_limited(shop: Shop) -> None:
    shop.add("u", 100)
    shop.limits(l={"kind": "requests", "limit": 2}, c={"kind": "concurrent", "limit": 2})
    holds = [shop.reserve(1), shop.reserve(1)]
    shop.limits(c={"limit": 1})
    assert shop.commit(holds[0], 1).status == 200
    assert shop.release(holds[1]).status == 200


def test_a_gateway_is_told_where_the_tightest_limit_stands(shop: Shop) -> None:
    """RateLimit-Policy, RateLimit and Retry-After; a check takes nothing."""
    shop.add("acme/u", 100)
    shop.limits("acme", team={"kind": "requests", "limit": 3})
    shop.limits("acme/u", rpm={"kind": "requests", "limit": 60}, c={"kind": "concurrent", "limit": 9})

    def authorize(mode: str) -> Answer:
        return shop.call("GET", f"/gateway/authorize?mode={mode}&amount=1", headers={"x-user-id": "acme/u"})

    assert [authorize("check").status for _ in range(5)] == [200] * 5
    told = [authorize("deduct"), authorize("reserve"), authorize("deduct")]
    assert [one.status for one in told] == [200] * 3
    assert [one.headers["ratelimit"] for one in told] == ['"team";r=2;t=20', '"team";r=1;t=40', '"team";r=0;t=60']
    assert {one.headers["ratelimit-policy"] for one in told} == {'"team";q=3;w=60'}
    refused = authorize("reserve")
    assert (refused.status, refused.headers["retry-after"], refused.headers["ratelimit"]) == (
        429,
        "20",
        '"team";r=0;t=20',
    )
    assert authorize("check").status == 429


def test_null_takes_a_member_back_to_what_it_is_by_itself(shop: Shop) -> None:
    """As in budgets. A new limit without kind and limit is none, and no null is a fault of the server."""
    for limit in ({"per_seconds": None}, {"kind": None, "limit": None, "per_seconds": None, "burst": None}):
        members = shop.refused(422, "validation-error", "PATCH", "/users/u", {"rate_limits": {"new": limit}})
        assert members["errors"][0]["pointer"] == "/rate_limits/new", members
    shop.limits(rpm={"kind": "requests", "limit": 5, "per_seconds": 10, "burst": 2})
    shop.limits(rpm={"limit": 6, "per_seconds": None, "burst": None})
    assert shop.user()["rate_limits"] == {
        "rpm": {"kind": "requests", "limit": 6, "per_seconds": 60, "burst": 6, "source": "user"}
    }
