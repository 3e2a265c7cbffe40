"""History: each change a row with the balances after it; texts and members of the caller's own come back unharmed."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from tests.api.sidecar import Api, balances

# One text per thing that goes wrong between JSON, Python, RESP, Lua and JSON again.
TEXTS = [
    "",
    "Grüße 🙂 👩‍👩‍👧 中文 العربية",
    "a\nb\r\nc\td",
    "\x01\x1f\x7f\x85  ",
    "\\u0000 in words",
    '"quoted" \\back\\slash /slash',
    "{p0} {} ; , %s %d %% $1",
    "'; return redis.call('FLUSHALL') --",
    "]]} , {",
    "0 ok 1 refused\nundone",
    "x" * 500,
    "🙂" * 500,
]


def rows(api: Api, query: str = "") -> list[dict[str, Any]]:
    """The items of user u's history."""
    items: list[dict[str, Any]] = api.get(f"/history/u{query}")["items"]
    return items


def test_every_kind_of_change_is_a_row_with_every_member(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 10, "grant_id": "g", "expires_at": "2023-11-14T22:23:20Z"}, key="k1")
    api.post("/add", {"user_id": "u", "amount": 5, "grant_id": "s", "effective_at": "2023-11-14T22:13:21Z"})
    api.advance(1)
    charge = api.post("/deduct", {"user_id": "u", "amount": 2, "description": "d", "metadata": {"n": 1.5}}, key="k2")
    api.post("/refund", {"user_id": "u", "transaction_id": charge["transaction_id"], "amount": 1})
    for name in ("c", "r", "e"):
        api.post("/reservations", {"user_id": "u", "amount": 1, "reservation_id": name, "ttl_seconds": 9}, status=201)
    api.post("/reservations/c/extend", {"add_amount": 1})
    api.post("/reservations/c/commit", {"amount": 1})
    api.post("/reservations/r/release")
    api.advance(10)
    api.post("/grants/u/s/void")
    api.patch("/users/u", {"suspended": True})
    api.advance(600)
    api.available("u")
    found = rows(api)
    assert [row["kind"] for row in reversed(found)] == [
        "grant",
        "grant",
        "grant_started",
        "deduct",
        "refund",
        "reserve",
        "reserve",
        "reserve",
        "extend",
        "commit",
        "release",
        "reservation_expired",
        "void",
        "account",
        "grant_expired",
    ]
    assert [row["seq"] for row in found] == list(range(15, 0, -1))
    assert found[11] == {
        "transaction_id": charge["transaction_id"],
        "seq": 4,
        "kind": "deduct",
        "user_id": "u",
        "amount": 2,
        "draws": [{"grant_id": "g", "amount": 2}],
        "available_after": 13,
        "reserved_after": 0,
        "debt_after": 0,
        "created_at": "2023-11-14T22:13:21.000Z",
        "reservation_id": None,
        "refund_of": None,
        "reference": "k2",
        "actor": None,
        "key_id": None,
        "description": "d",
        "metadata": {"n": Decimal("1.5")},
    }
    assert (found[5]["reservation_id"], found[5]["amount"], found[5]["available_after"]) == ("c", 1, 11)
    assert [row["reference"] for row in (found[13], found[14])] == [None, "k1"]
    assert (found[10]["refund_of"], found[10]["reference"]) == (charge["transaction_id"], "k2")
    assert found[0]["created_at"] == "2023-11-14T22:23:20.000Z"  # when it was due, not when it was seen


def test_history_is_filtered_and_paged(api: Api) -> None:
    for other in ("v", "u2", "u/x"):
        api.post("/add", {"user_id": other, "amount": 1})
    api.post("/add", {"user_id": "u", "amount": 100})
    for _ in range(9):
        api.advance(1)
        api.post("/deduct", {"user_id": "u", "amount": 1})
    assert [row["kind"] for row in rows(api, "?kind=grant")] == ["grant"]
    assert len(rows(api, "?kind=deduct")) == 9
    window = rows(api, "?from=2023-11-14T22:13:22Z&to=2023-11-14T23:13:25%2B01:00")
    assert [row["created_at"][17:19] for row in window] == ["24", "23", "22"]
    whole = [row["seq"] for row in rows(api)]
    assert whole == list(range(13, 3, -1))
    for limit in (1, 3, 10, 11):
        seen: list[int] = []
        cursor: str | None = ""
        while cursor is not None:
            page = api.get(f"/history/u?limit={limit}&cursor={cursor}")
            seen += [row["seq"] for row in page["items"]]
            cursor = page["next_cursor"]
        assert seen == whole
    for query in ("?kind=nothing", "?from=yesterday", "?to=2023-11-14T22:13:22", "?form=2023-11-14T22:13:22Z"):
        api.refused(422, "validation-error", "GET", f"/history/u{query}")
    assert rows(api, "?from=0001-01-01T00:00:00Z&kind=grant")[0]["amount"] == 100
    assert api.get("/history/nobody") == {"items": [], "next_cursor": None}


def test_a_balance_is_read_at_a_past_time(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 10})
    api.advance(10)
    api.post("/deduct", {"user_id": "u", "amount": 4})
    api.advance(10)
    at = "/balance/u?at=2023-11-14T22:13:"
    assert api.get(f"{at}19Z") == {"user_id": "u", **balances(0)}
    assert api.get(f"{at}20Z") == api.get(f"{at}29.999Z") == {"user_id": "u", **balances(10)}
    assert api.get(f"{at}30Z") == api.get("/balance/u?at=2999-01-01T00:00:00Z") == {"user_id": "u", **balances(6)}


def test_expiring_lists_the_live_grants_that_end_within_the_days(api: Api) -> None:
    for days in (1, 3, 8):
        body = {"user_id": "u", "amount": days, "grant_id": f"g{days}", "expires_at": f"2023-11-{14 + days}T22:13:20Z"}
        api.post("/add", body)
    api.post("/add", {"user_id": "u", "amount": 1, "grant_id": "never"})
    api.post("/add", {"user_id": "v", "amount": 1, "grant_id": "other", "expires_at": "2023-11-15T00:00:00Z"})
    for query, names in (
        ("", ["g1", "g3"]),
        ("?days=1.01", ["g1"]),
        ("?days=0.5", []),
        ("?days=30", ["g1", "g3", "g8"]),
    ):
        assert [item["grant_id"] for item in api.get(f"/expiring/u{query}")["items"]] == names
    first = api.get("/expiring/u?days=30&limit=2")
    rest = api.get(f"/expiring/u?days=30&limit=2&cursor={first['next_cursor']}")
    assert [item["grant_id"] for item in first["items"] + rest["items"]] == ["g1", "g3", "g8"]
    api.post("/deduct", {"user_id": "u", "amount": 1})
    assert [item["grant_id"] for item in api.get("/expiring/u?days=7")["items"]] == ["g3"]
    for query in ("?days=0", "?days=-1", "?days=nan", "?days=inf", "?days=x"):
        members = api.refused(422, "validation-error", "GET", f"/expiring/u{query}")
        assert [error["pointer"] for error in members["errors"]] == ["/days"]


def test_texts_and_members_come_back_unharmed(api: Api) -> None:
    api.post("/add", {"user_id": "u", "amount": 100})
    for n, text in enumerate(TEXTS):
        metadata: dict[str, Any] = {
            "text": text[:60],
            text[:20] + "key": [None, True, -1, 2**64 - 1, -(2**63), 1e-7, {"": {}}],
        }
        body = {"user_id": "u", "amount": 1, "description": text, "metadata": metadata}
        first = api.call("POST", "/credits/deduct", body, key=f"k{n}")
        assert first.status == 200, first.raw
        assert api.call("POST", "/credits/deduct", body, key=f"k{n}").raw == first.raw
        (raw,) = api.client.xrevrange(api.keys.outbox, count=1)
        detail = json.loads(raw[1][b"e"].split(b"\n")[1])[-1]
        assert (detail["description"], detail["metadata"]) == (text, metadata)
        assert api.entries()[-1].detail == detail
        row = api.get("/history/u?limit=1")["items"][0]
        assert (row["description"], row["metadata"]["text"]) == (text, text[:60])
        profile = api.patch("/users/u", {"metadata": metadata})["metadata"]
        assert profile["text"] == text[:60] and api.get("/users/u")["metadata"] == profile


def test_a_description_has_five_hundred_characters_and_metadata_a_kilobyte_at_the_most(api: Api) -> None:
    members = api.refused(
        422, "validation-error", "POST", "/deduct", {"user_id": "u", "amount": 0, "description": "🙂" * 501}
    )
    assert [error["pointer"] for error in members["errors"]] == ["/description"]
    fits = {"m": "x" * 1016}
    assert len(json.dumps(fits, separators=(",", ":"))) == 1024
    api.post("/deduct", {"user_id": "u", "amount": 0, "metadata": fits})
    api.patch("/users/u", {"metadata": fits})
    too_much = {"metadata": {"m": "x" * 1017}}
    for method, path, body in (
        ("POST", "/deduct", {"user_id": "u", "amount": 0, **too_much}),
        ("POST", "/reservations/r/release", too_much),
        ("PATCH", "/users/u", too_much),
    ):
        members = api.refused(422, "validation-error", method, path, body)
        assert [error["pointer"] for error in members["errors"]] == ["/metadata"]
