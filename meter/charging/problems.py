"""What a metered request is refused with, as problems (RFC 9457) with the seed's `detail` and `code`."""

from __future__ import annotations

from meter.errors import Unavailable
from meter.model import Refusal
from meter.problem import CONTENT_TYPE, PROBLEMS, Problem
from meter.wire import Rendered

MISSING_IDENTITY = Problem("missing-identity", 401, "No identity", "Send the header that names the user.")
INVALID_IDENTITY = Problem(
    "invalid-id", 400, "Invalid identity", "Name one user, by 1 to 128 of A-Z a-z 0-9 . _ : @ / -."
)
INVALID_ESTIMATE = Problem("invalid-estimate", 400, "Invalid estimate", "Send one plain number that is not negative.")


def rendered(kind: Problem, detail: str) -> Rendered:
    """The answer for a problem."""
    return Rendered(kind.status, kind.body(detail), CONTENT_TYPE)


def refused(refusal: Refusal) -> Rendered:
    """The answer for a refused hold: as the meter gave it, but a caller of ours knows of no `/amount`."""
    if refusal.detail.startswith("/amount:"):
        return rendered(INVALID_ESTIMATE, f"The estimate{refusal.detail.removeprefix('/amount')}")
    return Rendered(refusal.status, refusal.model_dump_json().encode(), CONTENT_TYPE)


def unavailable(error: Unavailable) -> Rendered:
    """The answer when nobody could say whether the user may spend."""
    return rendered(PROBLEMS["metering-unavailable"], f"Nothing was served: {error}")
