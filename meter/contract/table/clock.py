"""The calls that move the time of a test deployment."""

from __future__ import annotations

from meter.contract import answers, requests
from meter.contract.call import Call, Example
from meter.contract.table.story import NEXT_DAY, NOW

TAG = "test clock"
CALLS = (
    Call(
        "clock",
        "GET",
        "/test-clock",
        "Read the test clock",
        TAG,
        answers.Clock,
        Example({"now": NOW, "frozen": True}),
        prefix="",
        refuses=("not-found",),
    ),
    Call(
        "set_clock",
        "PUT",
        "/test-clock",
        "Freeze or move the test clock",
        TAG,
        answers.Clock,
        Example({"now": NEXT_DAY, "frozen": True}, {"advance_seconds": 86400}),
        body=requests.ClockRequest,
        prefix="",
        keyed=True,
        refuses=("not-found", "clock-backwards"),
    ),
)
