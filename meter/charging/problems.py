"""What a metered request is refused with when the meter does not hold its estimate."""

from __future__ import annotations

from meter.contract.answers import Refusal
from meter.contract.problems import CONTENT_TYPE
from meter.errors import Unavailable
from meter.http.rendered import Rendered, problem

TOO_MANY_REQUESTS = 429


def refused(refusal: Refusal) -> Rendered:
    """The answer for a refused hold: as the meter gave it, but a caller of ours knows of no `/amount`."""
    if refusal.detail.startswith("/amount:"):
        return problem("invalid-estimate", f"The estimate{refusal.detail.removeprefix('/amount')}")
    text = refusal.model_dump_json(exclude={"request_id"})  # that of our own call
    return Rendered(refusal.status, text.encode(), CONTENT_TYPE, headers=_headers(refusal))


def _headers(refusal: Refusal) -> tuple[tuple[bytes, bytes], ...]:
    """How long to wait, where rate limits alone refuse: the longest wait."""
    told = (refusal.model_extra or {}).get("violations") if refusal.status == TOO_MANY_REQUESTS else None
    waits = [one.get("retry_after_ms") for one in told if isinstance(one, dict)] if isinstance(told, list) else []
    known = [wait for wait in waits if isinstance(wait, int)]
    return ((b"retry-after", str(-(-max(known) // 1000)).encode()),) if known and len(known) == len(waits) else ()


def unavailable(error: Unavailable) -> Rendered:
    """The answer when nobody could say whether the user may spend."""
    return problem("metering-unavailable", f"Nothing was served: {error}")
