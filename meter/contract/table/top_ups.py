"""The calls about auto top-up."""

from __future__ import annotations

from meter.contract import top_ups
from meter.contract.call import Call, Example, JsonObject
from meter.contract.table.story import USER_2

TAG = "top-ups"
_TERMS: JsonObject = {
    "below": 2,
    "amount": 100,
    "payment_reference": "cus_5f0c:pm_2d9a",
    "most": 500,
    "period": "month",
}
_SET: JsonObject = {**USER_2, "state": "on", **_TERMS, "top_up_id": None}

CALLS = (
    Call(
        "set_top_up",
        "PUT",
        "/users/{user_id}/top-up",
        "Say what is bought when few credits are left",
        TAG,
        top_ups.TopUp,
        Example(_SET, _TERMS, path=USER_2),
        body=top_ups.TopUpRequest,
        refuses=("too-many-accounts",),
        keyed=True,
    ),
    Call(
        "top_up",
        "GET",
        "/users/{user_id}/top-up",
        "Read what is bought for an account",
        TAG,
        top_ups.TopUp,
        Example(_SET, path=USER_2),
    ),
    Call(
        "switch_top_up",
        "PATCH",
        "/users/{user_id}/top-up",
        "Turn it on or off",
        TAG,
        top_ups.TopUp,
        Example({**_SET, "state": "off"}, {"enabled": False}, path=USER_2),
        body=top_ups.TopUpSwitchRequest,
        refuses=("top-up-not-found",),
        keyed=True,
    ),
    Call(
        "remove_top_up",
        "DELETE",
        "/users/{user_id}/top-up",
        "Buy nothing any more, and forget the payer",
        TAG,
        top_ups.TopUp,
        Example({**USER_2, "state": "none", **dict.fromkeys(_TERMS), "top_up_id": None}, path=USER_2),
        refuses=("top-up-not-found",),
        keyed=True,
    ),
    Call(
        "top_ups",
        "GET",
        "/top-ups",
        "List requests to buy credits, newest first",
        TAG,
        top_ups.TopUpPage,
        Example({"items": [], "next_cursor": None}, query={"state": "open"}),
        query=top_ups.TopUpsQuery,
    ),
)
