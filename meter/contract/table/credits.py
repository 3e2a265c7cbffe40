"""The calls that put credits in and take them out in one step."""

from __future__ import annotations

from meter.contract import answers, requests
from meter.contract.call import OF_A_USAGE, OF_AN_API_KEY, OF_SPENDING, Call, Example, JsonObject
from meter.contract.runway import Runway
from meter.contract.table.story import END, IN_5_MINUTES, JOB_2, NOW, USER, WELCOME, balances

TAG = "credits"
CHARGE: JsonObject = {
    "transaction_id": "0-2-5f0c2d9a3b-2",
    "seq": 2,
    "kind": "deduct",
    **USER,
    "amount": 12.5,
    "draws": [{**WELCOME, "amount": 12.5}],
    "available_after": 87.5,
    "reserved_after": 0,
    "debt_after": 0,
    "created_at": NOW,
    "reservation_id": None,
    "refund_of": None,
    "reference": "order-17",
    "actor": None,
    "key_id": None,
    "description": "One image",
    "metadata": None,
}
REFUND: JsonObject = {
    **CHARGE,
    "transaction_id": "0-9-5f0c2d9a3b-8",
    "seq": 9,
    "kind": "refund",
    "amount": 2.5,
    "draws": [{**WELCOME, "amount": 2.5}],
    "available_after": 70.5,
    "refund_of": "0-2-5f0c2d9a3b-2",
    "description": "Half was blank",
}

CALLS = (
    Call(
        "add",
        "POST",
        "/add",
        "Add credits to a user",
        TAG,
        answers.Added,
        Example(
            {**USER, **WELCOME, "transaction_id": "0-1-5f0c2d9a3b-1", "amount": 100, **balances(100, 0)},
            {**USER, "amount": 100, **WELCOME, "expires_at": END, "description": "Welcome credits"},
        ),
        body=requests.AddRequest,
        later=answers.Pending,
        refuses=("grant-exists", "too-many-grants"),
        keyed=True,
        operation="grant",
    ),
    Call(
        "deduct",
        "POST",
        "/deduct",
        "Spend credits in one step",
        TAG,
        answers.Deducted,
        Example(
            {
                **USER,
                "transaction_id": "0-2-5f0c2d9a3b-2",
                "amount": 12.5,
                "taken": 12.5,
                "uncovered": 0,
                **balances(87.5, 0),
            },
            {**USER, "amount": 12.5, "description": "One image", "reference": "order-17"},
        ),
        body=requests.DeductRequest,
        refuses=(*OF_SPENDING, *OF_A_USAGE, *OF_AN_API_KEY),
        keyed=True,
    ),
    Call(
        "refund",
        "POST",
        "/refund",
        "Give back part of a charge",
        TAG,
        answers.Refunded,
        Example(
            {
                **USER,
                "transaction_id": "0-9-5f0c2d9a3b-8",
                "amount": 2.5,
                "forfeited": 0,
                "left": 10,
                **balances(70.5, 0),
            },
            {**USER, "transaction_id": "0-2-5f0c2d9a3b-2", "amount": 2.5, "description": "Half was blank"},
        ),
        body=requests.RefundRequest,
        refuses=("transaction-not-found", "refund-exceeds-charge", "not-refundable"),
        keyed=True,
    ),
    Call(
        "batch",
        "POST",
        "/batch",
        "Run several operations",
        TAG,
        answers.BatchAnswer,
        Example(
            {
                "results": [
                    {
                        "status": 200,
                        **USER,
                        "transaction_id": "0-6-5f0c2d9a3b-6",
                        "amount": 1.25,
                        "taken": 1.25,
                        "uncovered": 0,
                        **balances(68, 0),
                    },
                    {
                        "status": 201,
                        **USER,
                        **JOB_2,
                        "amount": 8,
                        "expires_at": IN_5_MINUTES,
                        "expires_in": 300,
                        **balances(60, 8),
                    },
                ]
            },
            {
                "operations": [
                    {"op": "deduct", **USER, "amount": 1.25},
                    {"op": "reserve", **USER, "amount": 8, **JOB_2},
                ]
            },
        ),
        body=requests.BatchRequest,
        refuses=("operations-span-partitions",),
        keyed=True,
    ),
    Call(
        "balance",
        "GET",
        "/balance/{user_id}",
        "Read a balance, now or at a past time",
        TAG,
        answers.Balance,
        Example({**USER, **balances(70.5, 0)}, path=USER),
        query=requests.BalanceQuery,
    ),
    Call(
        "history",
        "GET",
        "/history/{user_id}",
        "List a user's transactions",
        TAG,
        answers.TransactionPage,
        Example(
            {
                "items": [REFUND],
                "next_cursor": "LRxX2Dk",
            },
            path=USER,
            query={"limit": 1},
        ),
        query=requests.HistoryQuery,
        exports=True,
    ),
    Call(
        "trace",
        "GET",
        "/history",
        "Find the transactions of a reference, whoever's they are",
        TAG,
        answers.TransactionPage,
        Example({"items": [REFUND, CHARGE], "next_cursor": None}, query={"reference": "order-17"}),
        query=requests.TraceQuery,
        exports=True,
    ),
    Call(
        "explain",
        "GET",
        "/explain/{user_id}",
        "Tell what a deduct would do now",
        TAG,
        answers.Explanation,
        Example(
            {
                **USER,
                "amount": 50,
                "would": "ok",
                "violations": [],
                "short": 0,
                "burns": [{**WELCOME, "amount": 50}],
                "overdraft_limit": 0,
                "next_credits_at": None,
                "next_credits_amount": 0,
                **balances(70.5, 0),
            },
            path=USER,
            query={"amount": 50},
        ),
        query=requests.ExplainQuery,
    ),
    Call(
        "runway",
        "GET",
        "/runway/{user_id}",
        "Tell how long the credits last at the pace of the last days",
        TAG,
        Runway,
        Example(
            {
                **USER,
                "available": 70.5,
                "burn_per_day": None,
                "runs_out_at": None,
                "next_credits_at": None,
                "covered_until_next_credits": None,
                "confidence": None,
                "is_complete": True,
            },
            path=USER,
        ),
    ),
)
