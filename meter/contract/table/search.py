"""The calls by which support looks for something among all users."""

from __future__ import annotations

from meter.contract import requests, search
from meter.contract.call import Call, Example, JsonObject
from meter.contract.table.credits import CHARGE, REFUND
from meter.contract.table.story import END, NOW, USER, WELCOME

TAG = "search"

_NO_CHANGES: JsonObject = {"changes": None}

CALLS = (
    Call(
        "find",
        "GET",
        "/find",
        "Find whose an id is",
        TAG,
        search.FoundAnswer,
        Example(
            {"items": [{"kind": "request", "id": "order-17", **USER, "at": NOW}]},
            query={"id": "order-17"},
        ),
        query=search.FindQuery,
    ),
    Call(
        "transactions",
        "GET",
        "/transactions",
        "List the transactions of everybody",
        TAG,
        search.LedgerPage,
        Example(
            {"items": [{**REFUND, **_NO_CHANGES}], "next_cursor": None},
            query={"kind": "refund,void", **USER},
        ),
        query=search.TransactionsQuery,
        exports=True,
    ),
    Call(
        "transaction",
        "GET",
        "/transactions/{transaction_id}",
        "Tell all that belongs to a transaction",
        TAG,
        search.TransactionStory,
        Example(
            {
                "transaction": {**CHARGE, **_NO_CHANGES},
                "chain": [{**CHARGE, **_NO_CHANGES}, {**REFUND, **_NO_CHANGES}],
                "refundable": 10,
            },
            path={"transaction_id": "0-2-5f0c2d9a3b-2"},
        ),
        refuses=("transaction-not-found",),
    ),
    Call(
        "refusals",
        "GET",
        "/refusals",
        "Count what was refused",
        TAG,
        search.RefusalCountPage,
        Example({"items": [], "next_cursor": None}, query={"group_by": "reason,hour"}),
        query=search.RefusalsQuery,
    ),
    Call(
        "refusals_of",
        "GET",
        "/refusals/{user_id}",
        "List the last refusals of a user",
        TAG,
        search.RefusedPage,
        Example({"items": [], "next_cursor": None}, path=USER),
        query=requests.Query,
    ),
    Call(
        "ending",
        "GET",
        "/expiring",
        "List what ends soon, of everybody",
        TAG,
        search.EndingPage,
        Example(
            {
                "credits": 70.5,
                "users": 1,
                "items": [{**USER, **WELCOME, "remaining": 70.5, "expires_at": END}],
                "next_cursor": None,
            },
            query={"days": 36525},
        ),
        query=requests.ExpiringQuery,
    ),
)
