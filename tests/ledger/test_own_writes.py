"""P11: a caller reads its own writes on every list, with the same values whichever side a row comes from."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ledger.sidecar import Sidecar

Item = dict[str, Any]
STATES = ("committed", "released", "expired", "all")


def all_of(api: Sidecar, path: str, limit: int = 500, flush_after: int = -1) -> list[Item]:
    """Every item of a list; between two pages a flush of a few entries, if wanted."""
    found: list[Item] = []
    cursor: str | None = ""
    pages = 0
    while cursor is not None:
        page = api.get(f"{path}&limit={limit}" + (f"&cursor={cursor}" if cursor else ""))
        assert len(page["items"]) <= limit
        found, cursor, pages = found + page["items"], page["next_cursor"], pages + 1
        if pages == flush_after:
            api.flush(7)
    return found


def ids(items: list[Item]) -> list[str]:
    return [item.get("grant_id") or item["reservation_id"] for item in items]


@pytest.fixture
def busy(api: Sidecar) -> Sidecar:
    """User u has grants and reservations in every state, between those of user v; the clock stood at three times."""
    for user_id in ("v", "u"):
        api.post("/add", {"user_id": user_id, "amount": 5, "grant_id": "spent", "priority": 1})
        api.post("/add", {"user_id": user_id, "amount": 100, "grant_id": "used", "metadata": {"a": 1}})
        api.post("/add", {"user_id": user_id, "amount": 7, "grant_id": "later", "effective_at": "2030-01-01T00:00:00Z"})
        api.post("/add", {"user_id": user_id, "amount": 3, "grant_id": "ends", "expires_at": "2023-11-14T22:13:30Z"})
        api.post("/add", {"user_id": user_id, "amount": 4, "grant_id": "void"})
        api.post("/add", {"user_id": user_id, "amount": 8, "grant_id": "held", "priority": 2})
    for user_id in ("v", "u"):
        api.post("/deduct", {"user_id": user_id, "amount": 5})
        api.post("/reservations", {"user_id": user_id, "amount": 8, "reservation_id": f"{user_id}-open"}, status=201)
        for end in ("commit", "release", "late"):
            name = f"{user_id}-{end}"
            hold = {"user_id": user_id, "amount": 10, "reservation_id": name, "ttl_seconds": 5}
            api.post("/reservations", hold, status=201)
        api.post(f"/reservations/{user_id}-commit/extend", {"ttl_seconds": 60, "add_amount": 2})
    api.advance(1)
    for user_id in ("v", "u"):
        charge = api.post(f"/reservations/{user_id}-commit/commit", {"amount": 4})
        api.post(f"/reservations/{user_id}-release/release")
        api.post(f"/grants/{user_id}/void/void")
        api.post("/refund", {"user_id": user_id, "transaction_id": charge["transaction_id"], "amount": 1})
    api.advance(60)
    return api


def test_p11_a_new_grant_is_listed_as_it_is(api: Sidecar) -> None:
    """The case itself: 0 remaining since 1970 was what the pending row said."""
    api.post("/add", {"user_id": "u", "amount": 100})
    api.post("/deduct", {"user_id": "u", "amount": 40})
    [live], [stored] = api.get("/grants/u?state=live")["items"], api.get("/grants/u?state=all")["items"]
    assert live == stored
    assert (stored["remaining"], stored["effective_at"], stored["created_at"]) == (
        60,
        live["effective_at"],
        live["created_at"],
    )
    api.flush()
    assert api.get("/grants/u?state=all")["items"] == [live]


@pytest.mark.parametrize("flushed", [0, 3, 9, 17, 500])
def test_p11_every_list_is_the_same_before_and_after_the_flush(busy: Sidecar, flushed: int) -> None:
    if flushed:
        busy.flush(flushed)
    lists = ["/grants/u?state=all", *(f"/reservations?user_id=u&state={state}" for state in STATES)]
    unflushed = [all_of(busy, path) for path in lists]
    grants, committed, released, expired, every = unflushed
    assert {item["grant_id"]: item["state"] for item in grants} == {
        "spent": "exhausted",
        "used": "active",
        "later": "scheduled",
        "ends": "expired",
        "void": "voided",
        "held": "exhausted",
    }
    live = {item["grant_id"]: item for item in busy.get("/grants/u?state=live")["items"]}
    assert live == {item["grant_id"]: item for item in grants if item["grant_id"] in live}
    assert set(live) == {"used", "later", "held"}
    assert (ids(committed), ids(released), ids(expired)) == (["u-commit"], ["u-release"], ["u-late"])
    assert sorted(ids(every)) == ["u-commit", "u-late", "u-open", "u-release"]
    opened = busy.get("/reservations?user_id=u")["items"]
    assert opened == [item for item in every if item["state"] == "open"]
    busy.flush()
    assert [all_of(busy, path) for path in lists] == unflushed


@pytest.mark.parametrize("flushed", [0, 9])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_p11_pages_over_the_seam_neither_skip_nor_repeat(busy: Sidecar, limit: int, flushed: int) -> None:
    """Also while the flush goes on between two pages."""
    if flushed:
        busy.flush(flushed)
    for path in ("/grants/u?state=all", *(f"/reservations?user_id=u&state={state}" for state in STATES)):
        whole = all_of(busy, path)
        assert all_of(busy, path, limit) == whole
        for pause in (1, 2):
            assert ids(all_of(busy, path, limit, flush_after=pause)) == ids(whole)


def test_p11_states_change_as_soon_as_the_call_is_answered(api: Sidecar) -> None:
    """What the store still has as open is listed by what it now is, and nowhere else."""
    api.post("/add", {"user_id": "u", "amount": 100})
    for n in range(4):
        api.post("/reservations", {"user_id": "u", "amount": 1, "reservation_id": f"r{n}"}, status=201)
    api.flush()
    api.post("/reservations/r1/commit")
    api.post("/reservations/r2/release")
    assert ids(api.get("/reservations?user_id=u&state=all")["items"]) == ["r0", "r1", "r2", "r3"]
    assert ids(api.get("/reservations?user_id=u&state=committed")["items"]) == ["r1"]
    assert ids(api.get("/reservations?user_id=u&state=released")["items"]) == ["r2"]
    assert ids(api.get("/reservations?user_id=u&state=open")["items"]) == ["r0", "r3"]
    for path, names in (("all", ["r0", "r1", "r2", "r3"]), ("committed", ["r1"])):
        assert ids(all_of(api, f"/reservations?user_id=u&state={path}", 1)) == names
