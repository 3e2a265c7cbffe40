"""Who and when the examples of the calls are about."""

from __future__ import annotations

from meter.contract.call import JsonObject

NOW = "2026-01-01T12:00:00.000Z"
IN_5_MINUTES = "2026-01-01T12:05:00.000Z"
IN_10_MINUTES = "2026-01-01T12:10:00.000Z"
NEXT_DAY = "2026-01-02T12:00:00.000Z"
NEXT_MONTH = "2026-02-01T12:00:00.000Z"
END = "2099-12-31T00:00:00.000Z"

USER = {"user_id": "user-1"}
USER_2 = {"user_id": "user-2"}
USER_3 = {"user_id": "user-3"}
KEY = {"key_id": "key_5f0c2d9a3b5f0c2d9a3b"}
"""An id that nobody can choose: the one that the story draws stands in its place."""
CODE = {"code_id": "code_5f0c2d9a3b5f0c2d9a3b"}
"""Another one."""
WELCOME = {"grant_id": "welcome"}
JOB = {"reservation_id": "job-1"}
JOB_2 = {"reservation_id": "job-2"}


def balances(available: float, reserved: float) -> JsonObject:
    """The five balances of an answer."""
    balance = available + reserved
    return {"credits": available, "balance": balance, "reserved": reserved, "available": available, "debt": 0}
