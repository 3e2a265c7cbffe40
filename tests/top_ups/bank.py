"""A bank in memory: of one key it takes the money once. It may fall silent before or behind that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from meter.top_ups.provider import EventRefused, NoAnswer, Outcome, Payment, PaymentEvent

Way = Literal["paid", "declined", "pending", "silent before", "silent behind"]


@dataclass
class Bank:
    """Answers as `ways` say, one after the other, and then pays. `taken` has the money by key."""

    ways: list[Way] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    looked_up: Counter[str] = field(default_factory=Counter)
    known: dict[str, Outcome] = field(default_factory=dict)
    taken: dict[str, Payment] = field(default_factory=dict)
    is_blind: bool = False
    events: list[PaymentEvent] = field(default_factory=list)

    async def pay(self, payment: Payment) -> Outcome:
        self.asked[payment.key] += 1
        if payment.key in self.known:
            return self.known[payment.key]
        way = self.ways.pop(0) if self.ways else "paid"
        if way == "silent before":
            raise NoAnswer("nobody there")
        if way in ("declined", "pending"):
            self.known[payment.key] = Outcome("declined" if way == "declined" else "pending", f"pi_{payment.key}", way)
            return self.known[payment.key]
        self.take(payment)
        if way == "silent behind":
            raise NoAnswer("cut off")
        return self.known[payment.key]

    def take(self, payment: Payment) -> None:
        self.taken.setdefault(payment.key, payment)
        self.known[payment.key] = Outcome("paid", f"pi_{payment.key}")

    async def look_up(self, payment: Payment) -> Outcome | None:
        self.looked_up[payment.key] += 1
        if self.is_blind:
            raise NoAnswer("nobody there")
        return self.known.get(payment.key)

    async def event(self, headers: Mapping[str, str], body: bytes) -> PaymentEvent | None:
        if headers.get("signed") != "yes":
            raise EventRefused("not ours")
        return self.events[int(body)]

    async def close(self) -> None:
        return
