"""What a metered request is refused with when the meter does not hold its estimate."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from meter.contract.answers import Refusal
from meter.contract.problems import CONTENT_TYPE
from meter.contract.rate_headers import SECOND_MS, Headers, Refusing, rate_headers, refusal_headers
from meter.contract.rules import Rate, Violation
from meter.errors import Unavailable
from meter.http.rendered import Rendered, problem


def refused(refusal: Refusal) -> Rendered:
    """The answer for a refused hold: as the meter gave it, but a caller of ours knows of no `/amount`."""
    if refusal.detail.startswith("/amount:"):
        return problem("invalid-estimate", f"The estimate{refusal.detail.removeprefix('/amount')}")
    text = refusal.model_dump_json(exclude={"request_id"})  # that of our own call
    return Rendered(refusal.status, text.encode(), CONTENT_TYPE, headers=_headers(refusal))


def standing(rate: Rate | None) -> Headers:
    """The headers of a hold: where the tightest rate limit stands, if any counts it."""
    if rate is None:
        return ()
    per_ms = None if rate.per_seconds is None else round(rate.per_seconds * SECOND_MS)
    return rate_headers(rate.id, rate.limit, per_ms, rate.remaining, round((rate.resets_in or 0) * SECOND_MS))


def _headers(refusal: Refusal) -> Headers:
    """How long to wait, and which rate limit refuses; nothing of rules that are not told as they should be."""
    try:
        told = _Told.model_validate(refusal.model_extra or {})
    except ValidationError:
        return ()
    return refusal_headers([_refusing(one) for one in told.violations])


class _Told(BaseModel):
    """What a refusal says of the rules that refuse."""

    violations: list[Violation] = []


def _refusing(one: Violation) -> Refusing:
    per_ms = None if one.per_seconds is None else round(one.per_seconds * SECOND_MS)
    return Refusing(one.rule, one.id or "", int(one.limit or 0), per_ms, one.retry_after_ms)


def unavailable(error: Unavailable) -> Rendered:
    """The answer when nobody could say whether the user may spend."""
    return problem("metering-unavailable", f"Nothing was served: {error}")
