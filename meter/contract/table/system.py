"""The calls about the deployment itself, for operators."""

from __future__ import annotations

from meter.contract import system
from meter.contract.call import SYSTEM, Call, Example, JsonObject
from meter.contract.table.story import NOW

TAG = "system"
_NO_WORKER = "No worker seen: nothing is stored, granted or sent. Start `meter worker`."
_STATUS: JsonObject = {
    "state": "degraded",
    "sentence": "Serving. One thing needs somebody.",
    "version": "0.1.0",
    "as_of": NOW,
    "processes": [{"kind": "sidecar", "id": "a-host-1-0f3a", "version": "0.1.0", "started_at": NOW, "seen_at": NOW}],
    "redis": {"reachable": True, "us_per_op": None, "memory_bytes": None, "memory_share": None, "aof_ok": None},
    "outbox": {"waiting": 0, "oldest_ms": 0, "limit": 1_000_000},
    "store": {"kind": "memory", "rows": 0, "reachable": True},
    "warnings": [_NO_WORKER],
}

CALLS = (
    Call(
        "system_status",
        "GET",
        "/status",
        "Tell whether everything works that has to",
        TAG,
        system.SystemStatus,
        Example(_STATUS),
        prefix=SYSTEM,
        is_always_answered=True,
    ),
    Call(
        "doctor",
        "GET",
        "/doctor",
        "Examine the deployment: what is wrong, and what to do about it",
        TAG,
        system.Findings,
        Example(
            {
                "items": [
                    {
                        "name": "worker",
                        "level": "fail",
                        "found": "No worker seen: nothing is stored, granted or sent.",
                        "remedy": "Start `meter worker`.",
                    }
                ],
                "failed": 1,
            },
            query={"only": "worker"},
        ),
        query=system.DoctorQuery,
        prefix=SYSTEM,
        is_always_answered=True,
    ),
)
