"""What a response costs: pure decisions, from what was seen of it."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Literal

from meter.charging.priced import ChargeBy, WireUsage
from meter.usage import INSPECT_BYTES_MAX, Format, Number, Shape, shape_of, shape_of_results, shape_of_work

SUCCESS = range(200, 300)


class Missing(StrEnum):
    """What is charged when a response that counts tells no usage."""

    RELEASE = "release"
    """Nothing: the hold is given back."""
    ESTIMATE = "estimate"
    """What the request was estimated at."""
    RESERVED = "reserved"
    """All that is held, credits added to the hold meanwhile included."""


class Ending(Enum):
    """How an exchange ended."""

    CLEAN = auto()
    """The whole response was seen."""
    CUT = auto()
    """The application or the upstream broke off, or never answered."""
    GONE = auto()
    """The client went away, and the rest of the response was not seen."""


Over = Literal["cap", "overdraft", "hold_only"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargePolicy:
    """How holds are made and settled."""

    charge_by: ChargeBy = ChargeBy.AUTO
    """Whether what was used is priced by a rate card, or is itself what is charged."""
    shape: Shape = field(default_factory=lambda: shape_of(Format.AUTO))
    """Where a response tells its usage."""
    work_shape: Shape = field(default_factory=lambda: shape_of_work(Format.AUTO))
    """The same of what starts or reads work in the background."""
    results_shape: Shape = field(default_factory=shape_of_results)
    """A line of a batch's results."""
    background_ttl_seconds: float = 86400
    """How long credits are held for work in the background, unless the meter's longest life of a hold is shorter."""
    usage_headers: tuple[bytes, ...] = ()
    """Response headers, in lower case, that tell the credits to charge; the first one found beats the body, unless it
    tells 0 and the body more."""
    charge_statuses: Container[int] = SUCCESS
    """Responses of any other status release the hold."""
    on_missing_usage: Missing = Missing.RELEASE
    """When a response ended, or broke off, without telling its usage."""
    missing_usage_minimum: Number = 0
    """What a response that tells no usage costs at least, under any of the policies, also where the client left."""
    on_disconnect: Missing = Missing.ESTIMATE
    """When the client went away before usage was told: if that were free, nobody would stay for the end."""
    over: Over = "cap"
    """When usage exceeds the hold: charge what is free, go on to the overdraft limit, or (`hold_only`) charge what is
    held. Never a refusal, since the usage has happened."""
    ttl_seconds: float | None = None
    """Life of a hold, renewed each third of it while the exchange lasts; None: the meter's default."""
    inspect_bytes_max: int = INSPECT_BYTES_MAX
    """How much of a decoded response is searched for its usage; 0: all of it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Charge an amount of credits (None: all that is held), or give the hold back."""

    charge: bool
    amount: Number | None = None
    usage: WireUsage | None = None
    """What was used, where a rate card prices it: then the amount is of no meaning."""


RELEASE = Verdict(charge=False)


def verdict_on(
    policy: ChargePolicy,
    *,
    ending: Ending,
    status: int | None,
    usage: Number | None,
    estimate: Number,
    failed: bool = False,
) -> Verdict:
    """What an exchange costs. `status` is None when there was no response; `failed`: a good status, and yet the body
    says that it is a failure and tells no usage, for which nobody pays under any policy.
    """
    if failed:
        return RELEASE
    if status is not None and status not in policy.charge_statuses:
        return RELEASE
    if usage is not None:
        return Verdict(charge=True, amount=usage)
    if ending is Ending.GONE:
        return _without_usage(policy.on_disconnect, estimate, policy.missing_usage_minimum)
    if status is None:
        return RELEASE
    return _without_usage(policy.on_missing_usage, estimate, policy.missing_usage_minimum)


def _without_usage(missing: Missing, estimate: Number, minimum: Number) -> Verdict:
    if missing is Missing.RELEASE:
        return Verdict(charge=True, amount=minimum) if minimum else RELEASE
    if missing is Missing.ESTIMATE or minimum > estimate:
        return Verdict(charge=True, amount=max(estimate, minimum))
    return Verdict(charge=True)
