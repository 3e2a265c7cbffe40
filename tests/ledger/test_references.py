"""P19: one operation is found by its correlation id in every row that it left, flushed or not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ledger.sidecar import Sidecar

Row = dict[str, Any]
FLUSHES = [0, 3, 8, 500]


def kinds(rows: list[Row]) -> list[str]:
    return [row["kind"] for row in rows]


@pytest.fixture
def used(api: Sidecar) -> Sidecar:
    """Of u and v: holds called by a reference or a key, each settled in its own way, and refunded charges."""
    api.post("/add", {"user_id": "u", "amount": 100}, key="add-1")
    for name, more in (("a", {"reference": "trace-a"}), ("b", {}), ("c", {"reference": "trace-c"})):
        hold = {"user_id": "u", "amount": 5, "reservation_id": f"hold-{name}", "ttl_seconds": 60, **more}
        api.post("/reservations", hold, status=201, key="key-b" if name == "b" else None)
    api.post("/reservations/hold-a/extend", {"ttl_seconds": 90})
    commit = api.post("/reservations/hold-a/commit", {"amount": 3}, key="key-of-commit")
    api.post("/reservations/hold-b/release")
    api.post("/refund", {"user_id": "u", "transaction_id": commit["transaction_id"], "amount": 1})
    api.post("/add", {"user_id": "v", "amount": 100, "reference": "trace-a"})
    charge = api.post("/deduct", {"user_id": "v", "amount": 2, "reference": "order/7=?&"}, key="key-v")
    api.post("/refund", {"user_id": "v", "transaction_id": charge["transaction_id"]}, key="refund-v")
    api.advance(91)
    return api


@pytest.mark.parametrize("flushed", FLUSHES)
def test_p19_what_settles_a_reservation_carries_its_reference(used: Sidecar, flushed: int) -> None:
    if flushed:
        used.flush(flushed)
    rows = used.rows("?reference=trace-a")
    assert kinds(rows) == ["refund", "commit", "extend", "reserve"]
    assert {row["reference"] for row in rows} == {"trace-a"}
    assert [row["refund_of"] for row in rows] == [rows[1]["transaction_id"], None, None, None]
    assert kinds(used.rows("?reference=key-b")) == ["release", "reserve"]
    assert kinds(used.rows("?reference=trace-c")) == ["reservation_expired", "reserve"]
    assert kinds(used.rows("?reference=add-1")) == ["grant"]
    assert used.rows("?reference=add-1")[0]["reference"] == "add-1"
    assert kinds(used.rows("?reference=key-of-commit")) == ["commit"]  # its own key finds it, too
    assert used.rows("?reference=trace-a&kind=commit") == rows[1:2]
    assert used.rows("?reference=nobody") == used.rows("?reference=order/7=?%26") == []


@pytest.mark.parametrize("flushed", FLUSHES)
def test_p19_a_reference_is_traced_over_every_user(used: Sidecar, flushed: int) -> None:
    whole = used.get("/history?reference=trace-a")["items"]
    assert [(row["user_id"], row["kind"]) for row in whole] == [
        ("v", "grant"),
        ("u", "refund"),
        ("u", "commit"),
        ("u", "extend"),
        ("u", "reserve"),
    ]
    if flushed:
        used.flush(flushed)
    assert used.get("/history?reference=trace-a")["items"] == whole
    found: list[Row] = []
    cursor = ""
    for _ in range(6):
        page = used.get(f"/history?reference=trace-a&limit=1&cursor={cursor}")
        found, cursor = found + page["items"], page["next_cursor"]
        used.flush(3)
        if cursor is None:
            break
    assert found == whole
    called = used.get("/history?reference=order/7%3D?%26")["items"]
    assert [(row["kind"], row["reference"]) for row in called] == [("refund", "order/7=?&"), ("deduct", "order/7=?&")]
    assert called[0]["refund_of"] == called[1]["transaction_id"]
    for key, kind in (("key-v", "deduct"), ("refund-v", "refund"), ("key-of-commit", "commit"), ("add-1", "grant")):
        assert kinds(used.get(f"/history?reference={key}")["items"]) == [kind]


def test_p19_what_is_settled_after_the_flush_of_its_reserve_is_called_alike(used: Sidecar) -> None:
    used.post("/reservations", {"user_id": "u", "amount": 1, "reservation_id": "late", "reference": "r"}, status=201)
    used.flush()
    used.post("/reservations/late/commit")
    assert kinds(used.rows("?reference=r")) == ["commit", "reserve"]
    used.flush()
    assert kinds(used.rows("?reference=r")) == kinds(used.get("/history?reference=r")["items"]) == ["commit", "reserve"]


@pytest.mark.parametrize("text", ["", "a b", "a\nb", 'a"b', "a\\b", "x" * 129, "ä", "a\0"])
def test_p19_a_reference_that_no_header_could_carry_is_a_field_error(api: Sidecar, text: str) -> None:
    body = {"user_id": "u", "amount": 1, "reference": text}
    for path in ("/add", "/deduct", "/reservations"):
        members = api.refused(422, "validation-error", "POST", path, body)
        assert [error["pointer"] for error in members["errors"]] == ["/reference"]
    assert api.refused(422, "validation-error", "GET", "/history")["errors"][0]["pointer"] == "/reference"


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("mode", ["reserve", "deduct"])
def test_p19_a_gateways_charge_is_found_by_its_request_id(api: Sidecar, mode: str, flushed: bool) -> None:
    """Also when it ends by itself, by a release, or by a log."""
    api.post("/add", {"user_id": "u", "amount": 100})
    headers = {"x-user-id": "u", "x-estimated-tokens": "5"}
    ends = (
        {"committed": "7", "released": None, "logged": "2", "expired": None} if mode == "reserve" else {"charged": None}
    )
    for name in ends:
        told = {**headers, "x-request-id": f"req-{name}"}
        assert api.call("GET", f"/gateway/authorize?mode={mode}", headers=told).status == 200
    if flushed:
        api.flush()
    for name, actual in ends.items():
        told = {"x-user-id": "u", "x-request-id": f"req-{name}"}
        if name == "committed":
            assert api.call("GET", "/gateway/commit", headers={**told, "x-credits-actual": str(actual)}).status == 200
        elif name == "released":
            assert api.call("GET", "/gateway/commit", headers={**told, "x-upstream-status": "502"}).status == 200
        elif name == "logged":
            entry = {"user_id": "u", "request_id": f"req-{name}", "status": 200, "usage": actual}
            assert api.call("POST", "/gateway/logs", [entry]).body["accepted"] == 1
    api.advance(1000)
    expected = {"committed": "commit", "released": "release", "logged": "commit", "expired": "reservation_expired"}
    for name in ends:
        rows = api.rows(f"?reference=req-{name}")
        assert kinds(rows) == (["deduct"] if mode == "deduct" else [expected[name], "reserve"]), name
        assert {row["reference"] for row in rows} == {f"req-{name}"}
        assert rows[-1]["metadata"] == {"request_id": f"req-{name}"}
        assert api.get(f"/history?reference=req-{name}")["items"] == rows
