"""The calls about many users at once, for owners and support."""

from __future__ import annotations

from meter.contract import reports
from meter.contract.call import Call, Example, JsonObject
from meter.contract.table.story import NOW, USER, balances

TAG = "reports"
_USER: JsonObject = {
    **USER,
    **balances(70.5, 0),
    "restricted": 0,
    "granted": 100,
    "spent": 29.5,
    "expired": 0,
    "voided": 0,
    "open_reservations": 0,
    "overdraft_limit": 10,
    "suspended": False,
    "plan_ids": [],
    "spent_today": 29.5,
    "last_spent_at": NOW,
}
_USAGE: JsonObject = {
    "key": "user-1",
    "charges": 3,
    "charged": 32,
    "refunded": 2.5,
    "spent": 29.5,
    "granted": 100,
}
_CHANGE: JsonObject = {
    "event_id": "change-0f3a5c2d9a3b4e1f5a6b7c8d",
    "kind": "change",
    "user_id": None,
    "message": "create_plan",
    "detail": {
        "call": "create_plan",
        "query": None,
        "body": {
            "name": "Pro",
            "description": "For teams",
            "credit_limit": 1000,
            "price": 9.99,
            "billing_period": "monthly",
            "validity_days": 60,
            "rollover": {"percent": 20, "valid_days": 30},
            "plan_id": "pro",
        },
        "actor": None,
        "request_id": "5f0c2d9a3b1e-7",
    },
    "created_at": NOW,
}

CALLS = (
    Call(
        "users",
        "GET",
        "/users",
        "List users, by their ids, states, plans and metadata, in any order",
        TAG,
        reports.UserPage,
        Example(
            {"items": [_USER], "next_cursor": None, "is_complete": True, "as_of": NOW}, query={"starts_with": "user-"}
        ),
        query=reports.UsersQuery,
        exports=True,
    ),
    Call(
        "usage",
        "GET",
        "/usage",
        "Sum up what was spent, or usage figures by model, path, key, day and more",
        TAG,
        reports.UsageAnswer,
        Example({"items": [_USAGE], "next_cursor": None, "is_complete": True}, query={"by": "user"}),
        query=reports.UsageQuery,
        exports=True,
    ),
    Call(
        "events",
        "GET",
        "/events",
        "List what was refused, changed by hand, or went wrong",
        TAG,
        reports.EventPage,
        Example({"items": [_CHANGE], "next_cursor": None}, query={"kind": "change"}),
        query=reports.EventsQuery,
        exports=True,
    ),
)
