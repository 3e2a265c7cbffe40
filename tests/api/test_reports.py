"""U9: who spent what, what was refused yesterday, what a refund corrects, and who did it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from meter.api.reports import ReportHandlers
from meter.contract.answers import Transaction
from meter.contract.reports import UserSums
from meter.testing import app_in_step, fake_app

NOW = "2030-01-01T12:00:00.000Z"


@pytest.fixture
def http() -> Iterator[TestClient]:
    with TestClient(app_in_step(partitions=3)) as client:
        client.put("/test-clock", json={"now": NOW})
        yield client


def post(http: TestClient, path: str, body: object, status: int = 200, **headers: Any) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    response = http.post("/credits" + path, json=body, headers=sent)
    assert response.status_code == status, response.text
    return response.json()


def get(http: TestClient, path: str) -> Any:
    response = http.get("/credits" + path)
    assert response.status_code == 200, response.text
    return response.json()


def pages(http: TestClient, path: str) -> list[Any]:
    """All items, and that the pages have no item twice."""
    found: list[Any] = []
    cursor = ""
    while True:
        one = get(http, f"{path}&cursor={cursor}")
        found += one["items"]
        if one["next_cursor"] is None:
            return found
        cursor = one["next_cursor"]


def spend(http: TestClient) -> None:
    """Seven users in three partitions, on two days."""
    for n in range(7):
        user_id = f"team-{n % 2}/u{n}"
        post(http, "/add", {"user_id": user_id, "amount": 100})
        post(http, "/deduct", {"user_id": user_id, "amount": 10 + n, "metadata": {"model": f"m{n % 3}", "n": n}})
    http.put("/test-clock", json={"advance_seconds": 86400})
    charge = post(http, "/deduct", {"user_id": "team-0/u0", "amount": 5, "metadata": {"model": "m0"}})
    post(http, "/refund", {"user_id": "team-0/u0", "transaction_id": charge["transaction_id"], "amount": 2})


def test_u9_users_are_listed_and_searched_with_their_sums(http: TestClient) -> None:
    spend(http)
    for limit in (1, 2, 3, 50):
        found = pages(http, f"/users?limit={limit}")
        assert [one["user_id"] for one in found] == sorted(f"team-{n % 2}/u{n}" for n in range(7))
    assert [one["user_id"] for one in pages(http, "/users?starts_with=team-1/&limit=2")] == [
        "team-1/u1",
        "team-1/u3",
        "team-1/u5",
    ]
    assert [one["user_id"] for one in pages(http, "/users?starts_with=team-1/u3&limit=1")] == ["team-1/u3"]
    assert pages(http, "/users?starts_with=team-2&limit=1") == []
    first = found[0]
    assert set(first) == set(UserSums.model_fields)
    assert (first["granted"], first["spent"], first["available"], first["suspended"]) == (100, 13, 87, False)
    assert get(http, "/users")["is_complete"] is True


def test_u9_sums_are_by_user_day_metadata_and_plan(http: TestClient) -> None:
    spend(http)
    by_user = {one["key"]: one for one in pages(http, "/usage?by=user&limit=2")}
    assert by_user["team-0/u0"] == {
        "key": "team-0/u0",
        "charges": 2,
        "charged": 15,
        "refunded": 2,
        "spent": 13,
        "granted": 100,
    }
    by_day = pages(http, "/usage?by=day&limit=1")
    assert [(one["key"], one["charged"], one["refunded"]) for one in by_day] == [
        ("2030-01-01", 91, 0),
        ("2030-01-02", 5, 2),
    ]
    by_model = {one["key"]: one["charged"] for one in pages(http, "/usage?by=metadata&metadata_member=model&limit=1")}
    assert by_model == {"m0": 10 + 13 + 16 + 5, "m1": 11 + 14, "m2": 12 + 15}
    assert [one["charged"] for one in pages(http, "/usage?by=day&user_id=team-0/u0&from=2030-01-02T00:00:00Z")] == [5]
    assert pages(http, "/usage?by=user&to=2030-01-01T00:00:00Z") == []
    body = {"plan_id": "pro", "name": "Pro", "credit_limit": 50, "price": 1, "billing_period": "monthly"}
    post(http, "/plans", body, 201)
    http.put("/test-clock", json={"advance_seconds": 1})
    assert http.put("/credits/subscriptions/team-0%2Fu0", json={"plan_id": "pro"}).status_code == 200
    [plan] = pages(http, "/usage?by=plan")
    assert (plan["key"], plan["charged"], plan["granted"]) == ("pro", 0, 50)  # what came before it is no plan's
    for wrong in ("by=metadata", "by=user&metadata_member=x", "by=metadata&metadata_member=a.b", "by=x", "cursor=AAAA"):
        assert http.get(f"/credits/usage?{wrong}").status_code == 422, wrong


def test_u9_sums_of_a_past_window_stay_when_somebody_changes_the_plan(http: TestClient) -> None:
    for plan_id, limit in (("small", 50), ("large", 500)):
        body = {"plan_id": plan_id, "name": "P", "credit_limit": limit, "price": 1, "billing_period": "monthly"}
        post(http, "/plans", body, 201)
    assert http.put("/credits/subscriptions/u", json={"plan_id": "small"}).is_success
    post(http, "/deduct", {"user_id": "u", "amount": 7})
    before = pages(http, "/usage?by=plan")
    assert [(one["key"], one["charged"], one["granted"]) for one in before] == [("small", 7, 50)]
    changed_at = http.put("/test-clock", json={"advance_seconds": 86400}).json()["now"]
    post(http, "/subscriptions/u/upgrade", {"plan_id": "large"})
    post(http, "/deduct", {"user_id": "u", "amount": 9})
    assert pages(http, f"/usage?by=plan&to={changed_at}") == before
    assert [(one["key"], one["charged"]) for one in pages(http, f"/usage?by=plan&from={changed_at}")] == [("large", 9)]
    http.put("/test-clock", json={"advance_seconds": 1})
    assert http.delete("/credits/subscriptions/u").is_success
    post(http, "/deduct", {"user_id": "u", "amount": 1})
    assert [(one["key"], one["charged"]) for one in pages(http, "/usage?by=plan")] == [("large", 9), ("small", 7)]


def test_p19_what_a_call_about_a_plan_books_is_found_by_the_id_of_its_request(http: TestClient) -> None:
    for plan_id, limit in (("small", 50), ("large", 500)):
        body = {"plan_id": plan_id, "name": "P", "credit_limit": limit, "price": 1, "billing_period": "monthly"}
        post(http, "/plans", body, 201, x_request_id=f"make-{plan_id}")
    called = {"x-request-id": "begin"}
    assert http.put("/credits/subscriptions/u", json={"plan_id": "small"}, headers=called).is_success
    http.put("/test-clock", json={"advance_seconds": 3600})
    post(http, "/subscriptions/u/upgrade", {"plan_id": "large"}, x_request_id="change")
    ended = http.delete("/credits/subscriptions/u?unspent=void", headers={"x-request-id": "end"})
    assert ended.is_success

    def booked(request_id: str) -> list[tuple[str, int]]:
        rows = pages(http, f"/history?reference={request_id}")
        return sorted((row["kind"], row["amount"]) for row in rows)

    assert booked("begin") == [("grant", 50)]
    assert booked("change") == [("grant", 500), ("void", 50)]
    assert booked("end") == [("void", 500)]


def test_u9_a_refusal_can_be_asked_for_a_day_later(http: TestClient) -> None:
    post(http, "/add", {"user_id": "u", "amount": 5})
    body = {"user_id": "u", "amount": 9, "reference": "order-1"}
    post(http, "/deduct", body, 402, x_actor="till-3", idempotency_key="k")
    post(http, "/reservations", {"user_id": "v", "amount": 9}, 402, x_request_id="req-1")
    post(http, "/deduct", {"user_id": "u", "amount": 1})
    http.put("/test-clock", json={"advance_seconds": 86400})
    [one] = pages(http, "/events?kind=refusal&user_id=u")
    assert one["detail"] == {
        "operation": "deduct",
        "refusal": "insufficient",
        "operation_id": "k",
        "reservation_id": None,
        "amount": "9",
        "available": "5",
        "reference": "order-1",
        "actor": "till-3",
        "key_id": None,
        "violations": [{"rule": "credits", "user_id": "u", "id": None, "limit": "5", "required": "9"}],
    }
    assert one["created_at"].startswith("2030-01-01")
    assert [event["detail"]["reference"] for event in pages(http, "/events?kind=refusal&limit=1")] == [
        "req-1",
        "order-1",
    ]
    assert pages(http, "/events?from=2030-01-02T00:00:00Z") == []
    http.put("/test-clock", json={"advance_seconds": 8 * 86400})
    assert http.post("/credits/jobs/rotate").status_code == 200
    assert pages(http, "/events?kind=refusal") == [], "they are kept for METER_REFUSALS_KEEP_DAYS"


def test_u9_every_manual_change_says_who_and_why(http: TestClient) -> None:
    """In the ledger where credits or accounts change, in the log of changes where plans or subscriptions do."""
    actor: dict[str, Any] = {"x_actor": "anna@support"}
    post(http, "/add", {"user_id": "u", "amount": 50, "grant_id": "g", "description": "goodwill"}, **actor)
    charge = post(http, "/deduct", {"user_id": "u", "amount": 5, "description": "correction"}, **actor)
    refund = {"user_id": "u", "transaction_id": charge["transaction_id"], "description": "wrong user"}
    post(http, "/refund", refund, **actor)
    http.patch("/credits/users/u", json={"suspended": True, "description": "fraud"}, headers={"X-Actor": "bo"})
    post(http, "/grants/u/g/void", {"description": "fraud"}, **actor)
    found = get(http, "/history/u")["items"]
    assert [(row["kind"], row["actor"], row["description"]) for row in reversed(found)] == [
        ("grant", "anna@support", "goodwill"),
        ("deduct", "anna@support", "correction"),
        ("refund", "anna@support", "wrong user"),
        ("account", "bo", "fraud"),
        ("void", "anna@support", "fraud"),
    ]
    assert found[2]["refund_of"] == charge["transaction_id"]
    body = {"plan_id": "p", "name": "P", "credit_limit": 1, "price": 0, "billing_period": "monthly"}
    post(http, "/plans", body, 201, idempotency_key="k", **actor)
    post(http, "/plans", body, 201, idempotency_key="k", **actor)
    http.put("/credits/subscriptions/u", json={"plan_id": "p"}, headers={"X-Actor": "bo", "X-Request-Id": "req-1"})
    http.delete("/credits/subscriptions/u?when=now", headers={"X-Actor": "bo"})
    changes = pages(http, "/events?kind=change")
    assert [(one["message"], one["detail"]["actor"]) for one in reversed(changes)] == [
        ("create_plan", "anna@support"),
        ("subscribe", "bo"),
        ("unsubscribe", "bo"),
    ]
    assert changes[1]["user_id"] == "u" and changes[1]["detail"]["request_id"] == "req-1"
    assert changes[0]["detail"]["query"] == "when=now"


@pytest.mark.parametrize("wrong", ["a b", "", "x" * 129, 'a"b', "a\\b", "\xe9"])
def test_u9_an_actor_that_cannot_be_kept_is_refused(http: TestClient, wrong: str) -> None:
    for path, body in (("/add", {"user_id": "u", "amount": 1}), ("/deduct", {"user_id": "u", "amount": 0})):
        response = http.post("/credits" + path, json=body, headers={b"x-actor": wrong.encode("latin-1")})
        assert (response.status_code, response.json()["type"]) == (400, "/problems/invalid-actor")


def test_u9_an_actor_is_no_part_of_what_a_key_stands_for(http: TestClient) -> None:
    first = post(http, "/add", {"user_id": "u", "amount": 1}, idempotency_key="k", x_actor="a")
    assert post(http, "/add", {"user_id": "u", "amount": 1}, idempotency_key="k", x_actor="b") == first


@pytest.mark.parametrize(("how", "kind"), [("?format=csv", None), ("", "text/csv"), ("", "text/csv;q=0.9, */*")])
def test_u9_a_history_is_to_be_had_as_csv(http: TestClient, how: str, kind: str | None) -> None:
    """Whole, though it has more rows than a page; texts that a spreadsheet would run are made harmless."""
    post(http, "/add", {"user_id": "u", "amount": "9007199254.740991", "description": '=HYPERLINK("http://x")'})
    for n in range(0, 520, 260):
        operations = [{"op": "deduct", "user_id": "u", "amount": "0.000001"} for _ in range(260)]
        post(http, "/batch", {"operations": operations}, idempotency_key=f"b{n}")
    response = http.get(f"/credits/history/u{how}", headers={} if kind is None else {"accept": kind})
    assert response.headers["content-type"].startswith("text/csv")
    assert "content-length" not in response.headers
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert list(rows[0]) == list(Transaction.model_fields)
    assert [row["seq"] for row in rows] == [str(n) for n in range(521, 0, -1)]
    assert rows[-1]["description"] == '\'=HYPERLINK("http://x")'
    assert rows[-1]["amount"] == "9007199254.740991"
    assert json.loads(rows[0]["draws"])[0]["amount"] == 0.000001


@pytest.mark.parametrize("path", ["/history/u", "/history?reference=r", "/users", "/usage", "/events"])
def test_u9_each_list_is_to_be_had_as_ndjson(http: TestClient, path: str) -> None:
    post(http, "/add", {"user_id": "u", "amount": 5, "reference": "r"})
    post(http, "/deduct", {"user_id": "u", "amount": 5, "reference": "r"})
    post(http, "/deduct", {"user_id": "u", "amount": 5}, 402)
    response = http.get(f"/credits{path}", headers={"accept": "application/x-ndjson"})
    assert response.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in response.text.splitlines()] == get(http, path)["items"] != []
    limited = http.get(f"/credits{path}{'&' if '?' in path else '?'}format=ndjson&limit=1").text
    assert limited == response.text.splitlines()[0] + "\n"
    assert http.head(f"/credits{path}", headers={"accept": "text/csv"}).content == b""
    assert http.get(f"/credits{path}{'&' if '?' in path else '?'}format=xml").status_code == 422


def test_u9_a_report_needs_a_store_and_says_so() -> None:
    with TestClient(fake_app(store_url="none")) as http:
        for path in ("/users", "/usage", "/events"):
            response = http.get("/credits" + path)
            assert (response.status_code, response.json()["reason"]) == (503, "store")


def test_u9_a_report_that_the_store_is_behind_of_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: ReportHandlers) -> bool:
        return False

    monkeypatch.setattr(ReportHandlers, "_settled", never)
    with TestClient(fake_app(store_url="memory://")) as http:
        assert get(http, "/users")["is_complete"] is False


def test_a2_users_in_an_order_with_plans_and_what_they_spent_today(http: TestClient) -> None:
    spend(http)  # five and a half hours ago, and a day ago
    post(http, "/deduct", {"user_id": "team-1/u3", "amount": 5})
    post(
        http,
        "/plans",
        {"plan_id": "pro", "name": "Pro", "credit_limit": 1, "price": 1, "billing_period": "monthly"},
        201,
    )
    assert http.put("/credits/subscriptions/team-1/u3", json={"plan_id": "pro"}).status_code == 200
    http.patch("/credits/users/team-0/u2", json={"suspended": True, "metadata": {"tier": "gold"}})

    first = get(http, "/users?order=-spent_today&limit=1")["items"][0]
    assert (first["user_id"], first["spent_today"], first["plan_ids"]) == ("team-1/u3", 5, ["pro"])
    assert first["last_spent_at"] is not None
    in_order = [one["available"] for one in pages(http, "/users?order=available&limit=2")]
    assert in_order == sorted(in_order) and len(in_order) == 7
    assert [one["user_id"] for one in pages(http, "/users?state=suspended&limit=2")] == ["team-0/u2"]
    assert [one["user_id"] for one in pages(http, "/users?metadata=tier:gold&limit=2")] == ["team-0/u2"]
    assert [one["user_id"] for one in pages(http, "/users?plan_id=pro&limit=2")] == ["team-1/u3"]
    assert http.get("/credits/users?order=spent").status_code == 422
