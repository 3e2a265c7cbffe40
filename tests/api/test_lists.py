"""Lists to their end, page by page, whatever the size of a page and whatever changes between two pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fakeredis import FakeRedis, FakeServer
from starlette.testclient import TestClient

from meter.api.grants import BY_BURN_ORDER
from meter.testing import fake_app
from tests.api.sidecar import Api


def pages(api: Api, path: str, limit: int) -> list[list[dict[str, Any]]]:
    """Every page of a list."""
    found, cursor = [], ""
    while True:
        page = api.get(f"{path}&limit={limit}" + (f"&cursor={cursor}" if cursor else ""))
        assert set(page) == {"items", "next_cursor"}
        found.append(page["items"])
        cursor = page["next_cursor"]
        if cursor is None:
            return found
        assert cursor.isascii() and not set(cursor) & set(' "\\&#+%'), "a cursor goes into a URL as it is"
        assert len(found) < 100


@pytest.fixture
def granted(api: Api) -> Api:
    """User u has 23 grants: 20 live, one scheduled, one expired, one spent; user u2 and u/x have others."""
    for user_id in ("u2", "u/x", "t"):
        api.post("/add", {"user_id": user_id, "amount": 1, "grant_id": "not-yours"})
    api.post("/add", {"user_id": "u", "amount": 1, "grant_id": "spent"})
    api.post("/deduct", {"user_id": "u", "amount": 1})
    api.post("/add", {"user_id": "u", "amount": 1, "grant_id": "expired", "expires_at": "2023-11-14T22:13:21Z"})
    for n in range(20):
        api.post("/add", {"user_id": "u", "amount": n + 1, "grant_id": f"g{n:02}", "priority": 19 - n})
    api.post("/add", {"user_id": "u", "amount": 1, "grant_id": "later", "effective_at": "2024-01-01T00:00:00Z"})
    api.advance(1)
    return api


def test_grants_are_listed_once_each_in_burn_order(granted: Api) -> None:
    live = [f"g{n:02}" for n in reversed(range(20))] + ["later"]
    for limit in (1, 7, 20, 21, 22, 23, 24, 500):
        found = pages(granted, "/grants/u?state=live", limit)
        assert [item["grant_id"] for page in found for item in page] == live
        assert all(len(page) == limit for page in found[:-1])
        found = pages(granted, "/grants/u?state=all", limit)
        names = [item["grant_id"] for page in found for item in page]
        assert names[:21] == live and sorted(names[21:]) == ["expired", "spent"]


def test_a_page_is_fifty_unless_asked_otherwise(api: Api) -> None:
    for n in range(51):
        api.post("/add", {"user_id": "u", "amount": 1, "grant_id": f"g{n:02}"})
        api.post("/reservations", {"user_id": "u", "amount": 0, "reservation_id": f"r{n:02}"}, status=201)
    for path in ("/grants/u", "/reservations?user_id=u"):
        page = api.get(path)
        assert len(page["items"]) == 50
        mark = "&" if "?" in path else "?"
        last = api.get(f"{path}{mark}cursor={page['next_cursor']}")
        assert (len(last["items"]), last["next_cursor"]) == (1, None)


def test_reservations_are_listed_once_each_by_their_end(granted: Api) -> None:
    for user_id in ("u2", "u/x"):
        granted.post("/reservations", {"user_id": user_id, "amount": 0}, status=201)
    for n in range(12):
        body = {"user_id": "u", "amount": 1, "reservation_id": f"r{n}", "ttl_seconds": 100 - n}
        granted.post("/reservations", body, status=201)
    for limit in (1, 5, 12, 13, 500):
        found = pages(granted, "/reservations?user_id=u", limit)
        assert [item["reservation_id"] for page in found for item in page] == [f"r{n}" for n in reversed(range(12))]


def test_what_changes_between_two_pages_neither_repeats_nor_hides_the_rest(granted: Api) -> None:
    first = granted.get("/grants/u?limit=5")
    granted.post("/grants/u/g15/void")  # seen already
    granted.post("/deduct", {"user_id": "u", "amount": 21})  # g19 burns, g18 is drawn on and moves to the front
    rest = granted.get(f"/grants/u?limit=500&cursor={first['next_cursor']}")
    assert [item["grant_id"] for item in first["items"]] == ["g19", "g18", "g17", "g16", "g15"]
    assert [item["grant_id"] for item in rest["items"]] == [f"g{n:02}" for n in reversed(range(15))] + ["later"]


LISTS = (
    "/grants/u?state=live",
    "/grants/u?state=all",
    "/expiring/u?days=9999",
    "/reservations?user_id=u",
    "/reservations?user_id=u&state=all",
    "/reservations?user_id=u&state=released",
    "/history/u?",
    "/plans?",
    "/subscriptions/u?",
    "/webhooks?",
    "/notifications?",
)
MADE_UP = (
    *(".", "~", "~~", "L~0", "X~", "S~", "zzz", "%20", "%00", "a%00", "%F0%9F%99%82", "u2~L", "%0A", "%FF"),
    *("x", "-1", "1.5", "%C2%B2", "%D9%A3", "1~2", "9", "0", "null", "AAAA", "AAAAAAAA", "_" * 8, "="),
    *("9" * 5000, "a" * 5000, "A" * 511, "A" * 512, "A" * 513),
)


@pytest.fixture
def listed() -> Iterator[Api]:
    """Two users with two of everything that a list has, in a sidecar with a store whose worker does not run."""
    server = FakeServer()
    with TestClient(fake_app(server, store_url="memory://")) as http:
        api = Api(http, FakeRedis(server=server))
        for user_id in ("u", "u2"):
            for n in range(2):
                api.post("/add", {"user_id": user_id, "amount": 9, "expires_at": f"2030-01-0{n + 1}T00:00:00Z"})
                for end in ("", "/release"):
                    made = api.post("/reservations", {"user_id": user_id, "amount": 1}, status=201)
                    if end:
                        api.post(f"/reservations/{made['reservation_id']}{end}")
        for n in range(2):
            plan = {"name": "n", "plan_id": f"p{n}", "plan_group": f"g{n}", "credit_limit": 1, "price": 1}
            api.post("/plans", {**plan, "billing_period": "monthly"}, status=201)
            for user_id in ("u", "u2"):
                assert api.call("PUT", f"/credits/subscriptions/{user_id}", {"plan_id": f"p{n}"}).status == 200
            hook = api.post("/webhooks", {"url": f"https://example.com/{n}"}, status=201)
            api.post(f"/webhooks/{hook['webhook_id']}/test")
        yield api


def cursor_of(api: Api, path: str) -> str:
    page = api.get(f"{path}&limit=1")
    assert len(page["items"]) == 1
    return str(page["next_cursor"])


@pytest.mark.parametrize("path", LISTS)
def test_p10_a_cursor_that_is_none_of_the_lists_own_is_a_field_error(listed: Api, path: str) -> None:
    """Cut, lengthened, made up, of another list or another user, with a NUL: 422, and no store or script sees it."""
    own = cursor_of(listed, path)
    assert len(listed.get(f"{path}&limit=1&cursor={own}")["items"]) == 1
    others = {cursor_of(listed, other) for other in LISTS if other.partition("?")[0] != path.partition("?")[0]}
    if "u" in path.partition("?")[2] or path.partition("?")[0].endswith("/u"):
        others.add(cursor_of(listed, path.replace("/u?", "/u2?").replace("user_id=u", "user_id=u2")))
    damaged = (own[:-1], own[1:], own + "A", own + "=", own + "%00", "%00" + own, own[:-4] + "AAAA", own * 200)
    for cursor in (*damaged, *others, *MADE_UP):
        members = listed.refused(422, "validation-error", "GET", f"{path}&cursor={cursor}")
        assert [error["pointer"] for error in members["errors"]] == ["/cursor"], cursor


def test_p10_a_cursor_of_another_order_is_refused(listed: Api) -> None:
    """Open reservations go by their end, all of them by their creation."""
    by_end = cursor_of(listed, "/reservations?user_id=u")
    assert listed.refused(422, "validation-error", "GET", f"/reservations?user_id=u&state=all&cursor={by_end}")
    by_burn_order = cursor_of(listed, "/grants/u?state=live")
    assert listed.refused(422, "validation-error", "GET", f"/grants/u?state=all&cursor={by_burn_order}")


def test_p10_a_cursor_made_with_the_right_checksum_shows_nothing_of_another_user(granted: Api) -> None:
    for position in (".", f"L {'0' * 45} a", f"X {'9' * 45} zz"):
        cursor = BY_BURN_ORDER.write(position, scope="u")
        page = granted.get(f"/grants/u?state=all&cursor={cursor}")
        assert "not-yours" not in {item["grant_id"] for item in page["items"]}
    for position in ("u2 L", "L 0 a\nu2", f"L {'0' * 44} a", f"[ {'0' * 45} a", f"L {'0' * 45} u/x", "\0"):
        cursor = BY_BURN_ORDER.write(position, scope="u")
        assert granted.refused(422, "validation-error", "GET", f"/grants/u?state=all&cursor={cursor}")
