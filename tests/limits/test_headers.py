"""`RateLimit-Policy`, `RateLimit` and `Retry-After` of calls of the API: what is let through, refused, and repeated."""

from __future__ import annotations

from tests.api.sidecar import Answer
from tests.limits.conftest import Shop


def told(answer: Answer) -> tuple[str | None, str | None, str | None]:
    """The policy, where the limit stands, and the wait."""
    return tuple(answer.headers.get(name) for name in ("ratelimit-policy", "ratelimit", "retry-after"))  # type: ignore[return-value]


def test_what_is_let_through_tells_where_the_tightest_limit_stands(shop: Shop) -> None:
    shop.add("u", 100)
    shop.limits(rpm={"kind": "requests", "limit": 3}, wide={"kind": "requests", "limit": 9})
    assert told(shop.deduct(1)) == ('"rpm";q=3;w=60', '"rpm";r=2;t=20', None)
    assert told(shop.ask("/reservations", user_id="u", amount=1)) == ('"rpm";q=3;w=60', '"rpm";r=1;t=40', None)
    assert told(shop.deduct(0)) == (None, None, None), "which counts nothing"


def test_a_repeated_call_tells_nothing_of_then(shop: Shop) -> None:
    shop.add("u", 100)
    shop.limits(rpm={"kind": "requests", "limit": 3})
    body = {"user_id": "u", "amount": 1}
    first, again = (shop.call("POST", "/credits/deduct", body, key="k") for _ in range(2))
    assert (first.raw, told(first)[1]) == (again.raw, '"rpm";r=2;t=20')
    assert (again.replayed, told(again)) == (True, (None, None, None))


def test_a_limit_of_open_reservations_has_no_window(shop: Shop) -> None:
    shop.add("u", 100)
    shop.limits(open={"kind": "concurrent", "limit": 1})
    policy = '"open";q=1;qu="concurrent-requests"'
    assert told(shop.ask("/reservations", user_id="u", amount=1)) == (policy, '"open";r=0', None)
    again = "1"  # nobody knows when one of them ends
    assert told(shop.ask("/reservations", user_id="u", amount=1)) == (policy, '"open";r=0', again)


def test_of_several_that_refuse_the_one_that_does_so_longest_is_told(shop: Shop) -> None:
    shop.add("u", 100)
    shop.limits(a={"kind": "requests", "limit": 1}, b={"kind": "requests", "limit": 1, "per_seconds": 3600})
    assert shop.deduct(1).status == 200
    assert told(shop.deduct(1)) == ('"b";q=1;w=3600', '"b";r=0;t=3600', "3600")
    refused = shop.call("GET", "/gateway/authorize?amount=1", headers={"X-User-Id": "u"})
    assert (refused.status, told(refused)) == (429, ('"b";q=1;w=3600', '"b";r=0;t=3600', "3600"))
    nginx = shop.call("GET", "/gateway/authorize?dialect=nginx&amount=1", headers={"X-User-Id": "u"})
    assert (nginx.status, told(nginx)) == (403, ('"b";q=1;w=3600', '"b";r=0;t=3600', "3600"))


def test_waiting_for_the_window_of_a_budget(shop: Shop) -> None:
    shop.add("u", 100)
    shop.budgets(daily={"limit": 10, "window": "day"})
    assert shop.deduct(10).status == 200
    assert told(shop.deduct(1)) == (None, None, "43200")
    assert told(shop.deduct(11)) == (None, None, None), "no window has room for it"
