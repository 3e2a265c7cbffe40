"""The calls by which support looks for something among all users."""

from __future__ import annotations

from meter.contract import search
from meter.contract.call import Call, Example, JsonObject
from meter.contract.table.credits import CHARGE, REFUND
from meter.contract.table.story import NOW, USER

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
)
