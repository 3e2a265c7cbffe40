"""The calls about API keys."""

from __future__ import annotations

from meter.contract import keys
from meter.contract.call import Call, Example, JsonObject
from meter.contract.table.story import END, KEY, NOW, USER_2

TAG = "keys"
_NEXT = {"key_id": "key_0a1b2c3d4e5f60718293"}
LISTED: JsonObject = {
    **KEY,
    **USER_2,
    "name": "laptop",
    "scopes": ["spend", "read:self"],
    "models": None,
    "expires_at": None,
    "state": "active",
    "rotated_from": None,
    "created_at": NOW,
    "updated_at": NOW,
}
USED: JsonObject = {**LISTED, "last_used": None}
_AN_HOUR_ON = "2026-01-01T13:00:00.000Z"
_CHANGED: JsonObject = {**LISTED, "expires_at": END}
_TEXT = "mk_test_5f0c2d9akV3qYt8Zp0sLr2XwB6nM4cJ7hG1fD9eA5uI3oK0QbTz0mN2pR"
_OF_ONE = ("key-not-found", "key-over", "busy")

CALLS = (
    Call(
        "create_key",
        "POST",
        "/keys",
        "Make an API key",
        TAG,
        keys.IssuedKey,
        Example({**LISTED, "key": _TEXT}, {**USER_2, "name": "laptop"}),
        body=keys.KeyRequest,
        status=201,
        refuses=("too-many-keys", "too-many-accounts", "busy"),
        keyed=True,
    ),
    Call(
        "keys",
        "GET",
        "/keys",
        "List API keys",
        TAG,
        keys.KeyPage,
        Example({"items": [USED], "next_cursor": None}, query=USER_2),
        query=keys.KeysQuery,
    ),
    Call(
        "change_key",
        "PATCH",
        "/keys/{key_id}",
        "Change what an API key may do",
        TAG,
        keys.ListedKey,
        Example(_CHANGED, {"expires_at": END}, path=KEY),
        body=keys.KeyChanges,
        refuses=_OF_ONE,
        keyed=True,
    ),
    Call(
        "rotate_key",
        "POST",
        "/keys/{key_id}/rotate",
        "Put a new API key in the place of one",
        TAG,
        keys.IssuedKey,
        Example(
            {**_CHANGED, **_NEXT, "rotated_from": KEY["key_id"], "key": _TEXT}, {"overlap_seconds": 3600}, path=KEY
        ),
        body=keys.RotateKeyRequest,
        status=201,
        refuses=_OF_ONE,
        keyed=True,
    ),
    Call(
        "revoke_key",
        "POST",
        "/keys/{key_id}/revoke",
        "End an API key at once",
        TAG,
        keys.ListedKey,
        Example({**_CHANGED, "expires_at": _AN_HOUR_ON, "state": "revoked"}, {"reason": "laptop was lost"}, path=KEY),
        body=keys.RevokeKeyRequest,
        refuses=("key-not-found", "busy"),
        keyed=True,
    ),
)
