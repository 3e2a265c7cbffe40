"""One example of every call, for the OpenAPI document and for whoever tries it on `/docs`.

In this order they are one story, told to a sidecar that knows nobody and whose clock is frozen at `NOW`. A test tells
it and finds these answers, apart from the lane and batch at the end of a transaction_id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

JsonObject = Mapping[str, object]

NOW = "2026-01-01T12:00:00.000Z"
_IN_5_MINUTES = "2026-01-01T12:05:00.000Z"
_IN_10_MINUTES = "2026-01-01T12:10:00.000Z"
_END = "2099-12-31T00:00:00.000Z"
_NEXT_DAY = "2026-01-02T12:00:00.000Z"


@dataclass(frozen=True, slots=True)
class Example:
    """An answer, and the members of the path and the query and the body that led to it."""

    answer: JsonObject
    body: JsonObject | None = None
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str | int | float] = field(default_factory=dict)


def _balances(available: float, reserved: float) -> JsonObject:
    balance = available + reserved
    return {"credits": available, "balance": balance, "reserved": reserved, "available": available, "debt": 0}


_USER = {"user_id": "user-1"}
_JOB = {"reservation_id": "job-1"}
_JOB_2 = {"reservation_id": "job-2"}
_WELCOME = {"grant_id": "welcome"}
_SETTINGS: JsonObject = {"overdraft_limit": 10, "low_credit_thresholds": [20, 5], "metadata": {"team": "red"}}
_GRANT: JsonObject = {
    **_WELCOME,
    "amount": 100,
    "remaining": 70.5,
    "reserved": 0,
    "priority": 10,
    "effective_at": NOW,
    "expires_at": _END,
    "created_at": NOW,
    "source": "api",
    "state": "active",
}

_USER_2 = {"user_id": "user-2"}
_PRO = {"plan_id": "pro"}
_PLAN_BODY_WITHOUT_ID: JsonObject = {
    "name": "Pro",
    "description": "For teams",
    "credit_limit": 1000,
    "price": 9.99,
    "billing_period": "monthly",
    "validity_days": 60,
}
_PLAN_BODY: JsonObject = {**_PLAN_BODY_WITHOUT_ID, **_PRO}
_PLAN: JsonObject = {
    **_PLAN_BODY,
    "id": "pro",
    "priority": 10,
    "plan_group": "default",
    "active": True,
    "created_at": NOW,
    "updated_at": NOW,
}
_SUBSCRIPTION: JsonObject = {
    **_USER_2,
    **_PRO,
    "subscription_id": "s_0123456789ab",
    "plan_group": "default",
    "state": "active",
    "auto_renew": True,
    "anchor_at": NOW,
    "time_zone": "Europe/Berlin",
    "period": 0,
    "period_started_at": NOW,
    "next_period_at": "2026-02-01T12:00:00.000Z",
    "next_plan_id": None,
    "created_at": NOW,
    "updated_at": NOW,
}

_WEBHOOK_ID = {"webhook_id": "w_d9edd8944d47ab5285"}
_SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="  # noqa: S105 - an example
_WEBHOOK: JsonObject = {
    **_WEBHOOK_ID,
    "url": "https://example.com/meter",
    "description": None,
    "kinds": ["low_credits", "credits_exhausted"],
    "state": "enabled",
    "created_at": NOW,
    "updated_at": NOW,
}
_DELIVERY: JsonObject = {
    "notification_id": "msg_7f350e20f1f5009636194ae4f57b5d",
    "kind": "test",
    "user_id": "",
    "target": _WEBHOOK_ID["webhook_id"],
    "state": "due",
    "attempts": 0,
    "status": None,
    "error": None,
    "data": {"message": "A test of this endpoint."},
    "created_at": NOW,
    "attempted_at": None,
    "next_attempt_at": NOW,
}

EXAMPLES: Mapping[str, Example] = {
    "clock": Example({"now": NOW, "frozen": True}),
    "add": Example(
        {**_USER, **_WELCOME, "transaction_id": "0-1-5f0c2d9a3b-1", "amount": 100, **_balances(100, 0)},
        {**_USER, "amount": 100, **_WELCOME, "expires_at": _END, "description": "Welcome credits"},
    ),
    "deduct": Example(
        {
            **_USER,
            "transaction_id": "0-2-5f0c2d9a3b-2",
            "amount": 12.5,
            "taken": 12.5,
            "uncovered": 0,
            **_balances(87.5, 0),
        },
        {**_USER, "amount": 12.5, "description": "One image"},
    ),
    "reserve": Example(
        {**_USER, **_JOB, "amount": 25, "expires_at": _IN_5_MINUTES, "expires_in": 300, **_balances(62.5, 25)},
        {**_USER, "amount": 25, "ttl_seconds": 300, **_JOB},
    ),
    "reservations": Example(
        {
            "items": [
                {
                    **_JOB,
                    **_USER,
                    "state": "open",
                    "amount": 25,
                    "charged": 0,
                    "expires_at": _IN_5_MINUTES,
                    "created_at": NOW,
                }
            ],
            "next_cursor": None,
        },
        query=_USER,
    ),
    "reservation": Example(
        {
            **_USER,
            **_JOB,
            "state": "open",
            "amount": 25,
            "charged": 0,
            "expires_at": _IN_5_MINUTES,
            **_balances(62.5, 25),
        },
        path=_JOB,
    ),
    "extend": Example(
        {**_USER, **_JOB, "amount": 30, "expires_at": _IN_10_MINUTES, "expires_in": 600, **_balances(57.5, 30)},
        {"ttl_seconds": 600, "add_amount": 5},
        path=_JOB,
    ),
    "commit": Example(
        {
            **_USER,
            **_JOB,
            "transaction_id": "0-5-5f0c2d9a3b-5",
            "charged": 18.25,
            "released": 11.75,
            "forfeited": 0,
            "uncovered": 0,
            "late": False,
            **_balances(69.25, 0),
        },
        {"amount": 18.25},
        path=_JOB,
    ),
    "batch": Example(
        {
            "results": [
                {
                    "status": 200,
                    **_USER,
                    "transaction_id": "0-6-5f0c2d9a3b-6",
                    "amount": 1.25,
                    "taken": 1.25,
                    "uncovered": 0,
                    **_balances(68, 0),
                },
                {
                    "status": 201,
                    **_USER,
                    **_JOB_2,
                    "amount": 8,
                    "expires_at": _IN_5_MINUTES,
                    "expires_in": 300,
                    **_balances(60, 8),
                },
            ]
        },
        {
            "operations": [
                {"op": "deduct", **_USER, "amount": 1.25},
                {"op": "reserve", **_USER, "amount": 8, **_JOB_2},
            ]
        },
    ),
    "release": Example(
        {
            **_USER,
            **_JOB_2,
            "transaction_id": "0-8-5f0c2d9a3b-7",
            "released": 8,
            "forfeited": 0,
            **_balances(68, 0),
        },
        {"description": "Not needed"},
        path=_JOB_2,
    ),
    "refund": Example(
        {
            **_USER,
            "transaction_id": "0-9-5f0c2d9a3b-8",
            "amount": 2.5,
            "forfeited": 0,
            "left": 10,
            **_balances(70.5, 0),
        },
        {**_USER, "transaction_id": "0-2-5f0c2d9a3b-2", "amount": 2.5, "description": "Half was blank"},
    ),
    "balance": Example({**_USER, **_balances(70.5, 0)}, path=_USER),
    "history": Example(
        {
            "items": [
                {
                    "transaction_id": "0-9-5f0c2d9a3b-8",
                    "seq": 9,
                    "kind": "refund",
                    **_USER,
                    "amount": 2.5,
                    "draws": [{**_WELCOME, "amount": 2.5}],
                    "available_after": 70.5,
                    "reserved_after": 0,
                    "debt_after": 0,
                    "created_at": NOW,
                    "reservation_id": None,
                    "reference": None,
                    "description": "Half was blank",
                    "metadata": None,
                }
            ],
            "next_cursor": "9",
        },
        path=_USER,
        query={"limit": 1},
    ),
    "expiring": Example({"items": [_GRANT], "next_cursor": None}, path=_USER, query={"days": 36525}),
    "grants": Example({"items": [_GRANT], "next_cursor": None}, path=_USER),
    "explain": Example(
        {
            **_USER,
            "amount": 50,
            "would": "ok",
            "short": 0,
            "burns": [{**_WELCOME, "amount": 50}],
            "overdraft_limit": 0,
            "next_credits_at": None,
            "next_credits_amount": 0,
            **_balances(70.5, 0),
        },
        path=_USER,
        query={"amount": 50},
    ),
    "configure": Example({**_USER, "suspended": False, **_SETTINGS, **_balances(70.5, 0)}, _SETTINGS, path=_USER),
    "user": Example({**_USER, "suspended": False, **_SETTINGS, **_balances(70.5, 0)}, path=_USER),
    "void": Example(
        {**_USER, **_WELCOME, "transaction_id": "0-11-5f0c2d9a3b-9", "voided": 70.5, **_balances(0, 0)},
        {"description": "Trial ended"},
        path={**_USER, **_WELCOME},
    ),
    "create_plan": Example(_PLAN, _PLAN_BODY),
    "plans": Example({"items": [_PLAN], "next_cursor": None}),
    "plan": Example(_PLAN, path=_PRO),
    "update_plan": Example({**_PLAN, "price": 12}, {**_PLAN_BODY_WITHOUT_ID, "price": "12.00"}, path=_PRO),
    "subscribe": Example(_SUBSCRIPTION, {**_PRO, "time_zone": "Europe/Berlin"}, path=_USER_2),
    "subscriptions": Example({"items": [_SUBSCRIPTION], "next_cursor": None}, path=_USER_2),
    "upgrade": Example(_SUBSCRIPTION, {**_PRO, "when": "period_end"}, path=_USER_2),
    "allocate": Example({"allocated": 0, "more": False}),
    "unsubscribe": Example({**_SUBSCRIPTION, "state": "ended"}, path=_USER_2, query={"unspent": "void"}),
    "delete_plan": Example({**_PLAN, "price": 12}, path=_PRO),
    "create_webhook": Example({**_WEBHOOK, "secret": _SECRET}, {"url": _WEBHOOK["url"], "kinds": _WEBHOOK["kinds"]}),
    "webhooks": Example({"items": [_WEBHOOK], "next_cursor": None}),
    "rotate_webhook": Example({**_WEBHOOK, "secret": _SECRET}, path=_WEBHOOK_ID),
    "test_webhook": Example(_DELIVERY, path=_WEBHOOK_ID),
    "notifications": Example({"items": [_DELIVERY], "next_cursor": None}, query={"state": "due"}),
    "retry_notification": Example(_DELIVERY, path={"notification_id": str(_DELIVERY["notification_id"])}),
    "delete_webhook": Example({**_WEBHOOK, "state": "deleted"}, path=_WEBHOOK_ID),
    "set_clock": Example({"now": _NEXT_DAY, "frozen": True}, {"advance_seconds": 86400}),
}
