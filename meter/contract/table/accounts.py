"""The calls about what an account may do."""

from __future__ import annotations

from meter.contract import answers, requests
from meter.contract.call import Call, Example, JsonObject
from meter.contract.table.story import USER, balances

TAG = "accounts"
_BUDGET: JsonObject = {"limit": 25, "window": "day", "time_zone": "Europe/Berlin"}
_SETTINGS: JsonObject = {
    "overdraft_limit": 10,
    "low_credit_thresholds": [20, 5],
    "price_multiplier": 1.5,
    "budgets": {"daily": _BUDGET},
    "rate_limits": {"open": {"kind": "concurrent", "limit": 5}},
    "velocity": {"limit": 50, "per_seconds": 3600, "action": "suspend", "pause_seconds": 900},
    "pool": True,
    "use_pools": True,
    "metadata": {"team": "red"},
}
_COUNTED: JsonObject = {
    "unit": "credits",
    "mode": "enforce",
    "alert_at": [],
    "used": 0,
    "reserved": 0,
    "remaining": 25,
    "resets_at": "2026-01-01T23:00:00.000Z",
    "source": "user",
}
_USER: JsonObject = {
    **USER,
    "suspended": False,
    "rate_card": None,
    **_SETTINGS,
    **balances(70.5, 0),
    "budgets": {"daily": {**_BUDGET, **_COUNTED}},
    "rate_limits": {"open": {"kind": "concurrent", "limit": 5, "source": "user"}},
    "velocity": {"limit": 50, "per_seconds": 3600, "action": "suspend", "pause_seconds": 900, "tripped_until": None},
}

CALLS = (
    Call(
        "user",
        "GET",
        "/users/{user_id}",
        "Read what an account may do",
        TAG,
        answers.User,
        Example(_USER, path=USER),
    ),
    Call(
        "configure",
        "PATCH",
        "/users/{user_id}",
        "Change what an account may do",
        TAG,
        answers.User,
        Example(_USER, _SETTINGS, path=USER),
        body=requests.UserRequest,
        refuses=("too-many-accounts",),
        keyed=True,
    ),
    Call(
        "reset_budget",
        "POST",
        "/users/{user_id}/budgets/{budget_id}/reset",
        "Begin a budget anew",
        TAG,
        answers.User,
        Example({**_USER, **balances(0, 0)}, path={**USER, "budget_id": "daily"}),
        refuses=("budget-not-found",),
        keyed=True,
    ),
    Call(
        "anonymise",
        "POST",
        "/users/{user_id}/anonymise",
        "Take the name of a user out of everything",
        TAG,
        answers.Anonymised,
        Example({**USER, "state": "anonymised"}, path=USER),
        later=answers.Anonymising,
        refuses=("user-not-found", "account-in-use", "busy", "invalid-actor"),
    ),
)
