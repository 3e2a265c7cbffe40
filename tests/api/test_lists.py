"""Lists to their end, page by page, whatever the size of a page and whatever changes between two pages."""

from __future__ import annotations

from typing import Any

import pytest

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


def test_a_made_up_cursor_shows_nothing_of_another_user(granted: Api) -> None:
    for cursor in (
        ".",
        "~",
        "~~",
        "L~0",
        "X~",
        "S~",
        "zzz",
        "%20",
        "%00",
        "%F0%9F%99%82",
        "u2~L",
        "%0A",
        "a" * 5000,
        "%FF",
    ):
        for path in ("/grants/u?state=live", "/grants/u?state=all", "/reservations?user_id=u", "/expiring/u?days=9999"):
            page = granted.get(f"{path}&cursor={cursor}")
            assert "not-yours" not in {item.get("grant_id") for item in page["items"]}
            assert len(page["items"]) <= 23


def test_a_cursor_that_is_no_number_is_a_field_error(granted: Api) -> None:
    for cursor in ("x", "-1", "1.5", "%C2%B2", "%D9%A3", "9" * 5000, "1~2"):
        members = granted.refused(422, "validation-error", "GET", f"/history/u?cursor={cursor}")
        assert [error["pointer"] for error in members["errors"]] == ["/cursor"]
