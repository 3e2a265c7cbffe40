"""The calls about grants: lots of credits, each with its own priority and end."""

from __future__ import annotations

from meter.contract import answers, requests
from meter.contract.call import Call, Example, JsonObject
from meter.contract.table.story import END, NOW, USER, WELCOME, balances

TAG = "grants"
_GRANT: JsonObject = {
    **WELCOME,
    "amount": 100,
    "remaining": 70.5,
    "reserved": 0,
    "priority": 10,
    "effective_at": NOW,
    "expires_at": END,
    "created_at": NOW,
    "source": "api",
    "state": "active",
    "rollover": None,
}

CALLS = (
    Call(
        "expiring",
        "GET",
        "/expiring/{user_id}",
        "List grants that end soon",
        TAG,
        answers.GrantPage,
        Example({"items": [_GRANT], "next_cursor": None}, path=USER, query={"days": 36525}),
        query=requests.ExpiringQuery,
    ),
    Call(
        "grants",
        "GET",
        "/grants/{user_id}",
        "List grants in burn order",
        TAG,
        answers.GrantPage,
        Example({"items": [_GRANT], "next_cursor": None}, path=USER),
        query=requests.GrantsQuery,
    ),
    Call(
        "void",
        "POST",
        "/grants/{user_id}/{grant_id}/void",
        "End a grant early",
        TAG,
        answers.Voided,
        Example(
            {**USER, **WELCOME, "transaction_id": "0-11-5f0c2d9a3b-9", "voided": 70.5, **balances(0, 0)},
            {"description": "Trial ended"},
            path={**USER, **WELCOME},
        ),
        body=requests.VoidRequest,
        refuses=("grant-not-found", "grant-over"),
        keyed=True,
    ),
)
