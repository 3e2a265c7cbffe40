"""What takes the money: the Protocol of providers of payments, and what is said between them and us.

A payment has a key, which stays the same however often it is asked for or looked up. A provider that is asked twice
with one key takes the money once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

from meter.errors import MeterError

State = Literal["paid", "declined", "pending"]
"""`pending`: the provider has the payment, and will tell how it comes out."""


@dataclass(frozen=True, slots=True)
class Payment:
    """What is to be paid. `key` is its name at the provider, `reference` what that knows the payer by, `attempt` counts
    from 1: after a decline it is another payment, with a key of its own.
    """

    key: str
    top_up_id: str
    user_id: str
    credits: Decimal
    reference: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a payment stands. `payment_id` is what the provider calls it, `reason` why it was declined."""

    state: State
    payment_id: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PaymentEvent:
    """What a provider tells by itself. `reversed`: the money went back, by a refund or a dispute."""

    key: str
    state: Literal["paid", "declined", "pending", "reversed"]
    payment_id: str | None = None
    reason: str = ""


class NoAnswer(MeterError):
    """Nobody knows whether the provider has the payment, or how it stands: it is looked up later."""


class EventRefused(MeterError):
    """An event that is not the provider's, or that cannot be read."""


class PaymentProvider(Protocol):
    """Takes payments: the extension point. The worker calls it; `event` is called by the sidecar.

    What else a method raises counts as `NoAnswer`. One that takes longer than `PROVIDER_SECONDS` of
    meter/top_ups/carrying.py is cut off, which is no answer either.
    """

    async def pay(self, payment: Payment) -> Outcome:
        """Takes the money, once for a key. Raises `NoAnswer` where it may or may not have been taken."""
        ...

    async def look_up(self, payment: Payment) -> Outcome | None:
        """How a payment stands; None where the provider has never heard of it. Raises `NoAnswer`."""
        ...

    async def event(self, headers: Mapping[str, str], body: bytes) -> PaymentEvent | None:
        """What a request to `/payments/events` tells; None for what is of no concern here. `headers` have names in
        lower case. Raises `EventRefused`, and `NoAnswer` where it cannot be told just now.
        """
        ...

    async def close(self) -> None:
        """Closes its connections."""
        ...
