"""One example of every call, for the OpenAPI document and for whoever tries it on `/docs`.

In this order they are one story, told to a sidecar that knows nobody and whose clock is frozen at `NOW`. A test tells
it and finds these answers, apart from the lane and batch at the end of a transaction_id.
"""

from __future__ import annotations

from collections.abc import Mapping

from meter.openapi.example import NOW, Example, JsonObject
from meter.openapi.example_plans import NOTIFICATION_EXAMPLES, PLAN_EXAMPLES

_IN_5_MINUTES = "2026-01-01T12:05:00.000Z"
_IN_10_MINUTES = "2026-01-01T12:10:00.000Z"
_END = "2099-12-31T00:00:00.000Z"
_NEXT_DAY = "2026-01-02T12:00:00.000Z"


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
    "rollover": None,
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
    **PLAN_EXAMPLES,
    **NOTIFICATION_EXAMPLES,
    "set_clock": Example({"now": _NEXT_DAY, "frozen": True}, {"advance_seconds": 86400}),
}
