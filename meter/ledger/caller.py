"""What the entry of a reserve tells of its caller: whether it chose the id, and by which API key it asked."""

from __future__ import annotations

from meter.engine.outbox import Entry, Kind
from meter.keys import OUR_RESERVATION_ID

CHOSEN = "reserve "
"""What the operation_id of a reservation's own id begins with; no caller's key has a blank."""


def is_chosen(entry: Entry) -> bool:
    """Whether the entry is a reserve whose caller chose the reservation_id, which then is an idempotency key."""
    if entry.kind is not Kind.RESERVE or "fingerprint" not in entry.detail:
        return False
    ours = OUR_RESERVATION_ID.fullmatch(str(entry.detail.get("reservation_id")))
    return ours is None or ours.group(1) != "r"


def api_key_of(entry: Entry) -> str | None:
    """What a reservation keeps of the key that it was asked for by, as lua/state/hold.lua has it."""
    key_id, models = entry.text("key_id"), entry.text("models")
    return key_id if models is None else f"{key_id},{models}"
