"""The calls about promo codes."""

from __future__ import annotations

from meter.contract import answers, codes, requests
from meter.contract.call import Call, Example, JsonObject
from meter.contract.table.story import CODE, END, NOW, USER_2, balances

TAG = "codes"
_LISTED: JsonObject = {
    **CODE,
    "amount": 5,
    "priority": 10,
    "valid_days": 30,
    "max_total": 100,
    "max_per_user": 1,
    "only": None,
    "redeemed": 0,
    "starts_at": NOW,
    "ends_at": END,
    "state": "active",
    "description": "Spring",
    "created_at": NOW,
    "updated_at": NOW,
}
_REDEEMED: JsonObject = {**_LISTED, "redeemed": 1}

CALLS = (
    Call(
        "create_code",
        "POST",
        "/codes",
        "Make a promo code",
        TAG,
        codes.CreatedCode,
        Example(
            {**_LISTED, "code": "SPRING"},
            {
                "code": "spring",
                "amount": 5,
                "valid_days": 30,
                "max_total": 100,
                "ends_at": END,
                "description": "Spring",
            },
        ),
        body=codes.CodeRequest,
        status=201,
        refuses=("code-exists", "busy"),
        keyed=True,
    ),
    Call(
        "redeem",
        "POST",
        "/redeem",
        "Give a user what a promo code gives",
        TAG,
        answers.Added,
        Example(
            {
                **USER_2,
                "grant_id": f"{CODE['code_id']}_1",
                "transaction_id": "0-18-5f0c2d9a3b-18",
                "amount": 5,
                **balances(1005, 0),
            },
            {**USER_2, "code": "Spring"},
        ),
        body=codes.RedeemRequest,
        later=answers.Pending,
        refuses=(
            "code-not-found",
            "code-ended",
            "code-used-up",
            "code-redeemed",
            "too-many-grants",
            "rate-limited",
            "not-implemented",
            "busy",
        ),
        keyed=True,
    ),
    Call(
        "codes",
        "GET",
        "/codes",
        "List promo codes",
        TAG,
        codes.CodePage,
        Example({"items": [_REDEEMED], "next_cursor": None}),
        query=requests.Query,
    ),
    Call(
        "stop_code",
        "POST",
        "/codes/{code_id}/stop",
        "Take a promo code no more; what it gave stays",
        TAG,
        codes.ListedCode,
        Example({**_REDEEMED, "state": "stopped"}, {"reason": "It was on a deal site"}, path=CODE),
        body=codes.StopCodeRequest,
        refuses=("code-not-found", "busy"),
        keyed=True,
    ),
)
