"""What a request has used, as a gateway tells it, and what becomes of its hold for that."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from meter.amount import AmountScale
from meter.charging.amounts import plain, rounded_up
from meter.charging.models import all_names
from meter.charging.policy import ChargePolicy, Ending, Missing, Verdict, verdict_on
from meter.charging.priced import quantities_of
from meter.charging.settlements import BackgroundSettlements
from meter.engine import operations, priced
from meter.engine.answers import (
    FINISHED,
    MODEL_NOT_ALLOWED,
    NAME,
    UNCOUNTABLE,
    UNKNOWN_MODEL,
    UNPRICED,
    WORD,
    subject_of,
)
from meter.engine.engine import Engine
from meter.engine.operations import Operation
from meter.engine.prices import NO_MODEL, usage_text
from meter.errors import InvalidAmount, MeterError, Unavailable
from meter.gateway.counts import GatewayCounts, Way
from meter.gateway.ids import ReservationNames
from meter.log import logger
from meter.usage import Usage
from meter.usage.number import Number, read_number

FAILED_STATUS = 502
"""What a good status counts as when the body says that it is a failure."""
CLIENT_CLOSED_REQUEST = 499
"""What nginx logs when the client left before the response began."""

_COMMITS = {one.name: one for one in (operations.COMMIT, priced.COMMIT_USAGE)}
_UNPRICED = frozenset(one.word for one in (UNKNOWN_MODEL, UNPRICED, UNCOUNTABLE, MODEL_NOT_ALLOWED))

Otherwise = Callable[[Operation, str], Operation | None]
"""What is to be done instead of a settlement that was refused with a line."""

_log = logger("meter.gateway")

_STATUS = re.compile(r"(?:HTTP/[0-9.]+ )?([1-9][0-9]{2})(?:\.0*)?(?= |$)")
_NO_STATUS = re.compile(r"-?|0+|-?[0-9]{1,2}(?:\.0*)?|-1(?:\.0*)?")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended. `status` is None when there was no response."""

    status: int | None = 200
    usage: Number | None = None
    """As an amount of credits, where no rate card prices it."""
    ending: Ending = Ending.CLEAN
    told: Usage | None = None
    """As a rate card prices it; None of credits."""


@dataclass(frozen=True, slots=True)
class Told:
    """An outcome and whose hold it ends: the reservation, or the user and the request that it was made for."""

    reservation_id: str | None = None
    user_id: str | None = None
    request_id: str | None = None
    outcome: Outcome = field(default_factory=Outcome)


class SettlementRules:
    """Turns what a gateway saw into the operation that ends the hold. The hold stands for the estimate."""

    def __init__(
        self,
        scale: AmountScale,
        on_missing_usage: str,
        counts: GatewayCounts,
        *,
        prices: bool,
        names: ReservationNames | None = None,
    ) -> None:
        self._names = names
        """`prices`: whether the rate card of a hold prices what is told as used."""
        self._scale = scale
        self._prices = prices
        self._counts = counts
        self._policy = ChargePolicy(
            on_missing_usage=Missing.RESERVED if on_missing_usage == "estimate" else Missing.RELEASE,
            on_disconnect=Missing.RESERVED,
        )

    def settlement_of(self, reservation_id: str, outcome: Outcome, way: Way) -> Operation:
        """A commit or a release. A usage that no amount can be is charged as all that is held."""
        verdict = self._verdict(outcome)
        if outcome.usage is None and self._costs(outcome.status):
            self._counts.without_usage(way, charged=verdict.charge)
        if not verdict.charge:
            return operations.release(reservation_id)
        if outcome.told is not None and self._prices:
            names = all_names([outcome.told.model] if outcome.told.model else [])
            # Behind its own names stands the model of the hold.
            usage = ",".join([*names, usage_text(None, quantities_of(outcome.told))])
            return priced.commit_usage(reservation_id, usage, self._policy.over, amount=self._units(verdict.amount))
        return operations.commit(reservation_id, self._units(verdict.amount), self._policy.over)

    def otherwise(self, settlement: Operation, line: str) -> Operation | None:
        """What is to be done instead of a settlement that was refused with that line; None where that is the end."""
        other = None if self._names is None else self._names.by_the_other(settlement, line)
        return other or without_price(settlement, line)

    def _verdict(self, outcome: Outcome) -> Verdict:
        status, ending = outcome.status, outcome.ending
        if status == CLIENT_CLOSED_REQUEST:
            status, ending = None, Ending.GONE
        return verdict_on(self._policy, ending=ending, status=status, usage=outcome.usage, estimate=0)

    def _costs(self, status: int | None) -> bool:
        return status is None or status == CLIENT_CLOSED_REQUEST or status in self._policy.charge_statuses

    def _units(self, amount: Number | None) -> int | None:
        if amount is None:
            return None
        try:
            return self._scale.units(plain(rounded_up(amount, self._scale.decimal_places)))
        except InvalidAmount:
            return None


class GatewaySettlements:
    """Settlements that no gateway waits for: datagrams, gRPC streams, and commits that were answered 503."""

    def __init__(self, engine: Engine, counts: GatewayCounts, otherwise: Otherwise | None = None) -> None:
        self._otherwise = otherwise or without_price
        self._engine = engine
        self._counts = counts
        self._background = BackgroundSettlements(counts.gave_up)

    def settle(self, settlement: Operation, way: Way) -> None:
        """Ends the hold that the operation is about: asked at once, and again in the background while Redis is away."""

        def heard(line: str | MeterError) -> None:
            if isinstance(line, Unavailable):
                self._again(settlement, way)
            else:
                self._afterwards(settlement, line, way)

        try:
            self._engine.submit_for_reservation(subject_of(settlement), settlement, heard)
        except Unavailable:
            self._again(settlement, way)

    async def close(self) -> None:
        """Waits a little for what is under way; what is still undecided then ends by itself."""
        await self._background.drain()

    def _afterwards(self, settlement: Operation, line: str | MeterError, way: Way) -> None:
        otherwise = None if isinstance(line, MeterError) else self._otherwise(settlement, line)
        if otherwise is not None:
            self.settle(otherwise, way)
            return
        self._counts.settled(way, settlement, line)
        charge = None if isinstance(line, MeterError) else afterwards(settlement, line)
        if charge is None:
            return

        async def attempt() -> None:
            answer = await self._engine.run(subject_of(charge), charge)
            self._counts.settled(way, charge, answer)

        self._background.settle(attempt, f"reservation {subject_of(settlement)}, told of again")

    def _again(self, settlement: Operation, way: Way) -> None:
        async def attempt() -> None:
            line = await self._engine.run_for_reservation(subject_of(settlement), settlement)
            self._afterwards(settlement, line, way)

        self._background.settle(attempt, f"reservation {subject_of(settlement)}")


def afterwards(settlement: Operation, line: str) -> Operation | None:
    """The charge of a hold that was given back, or charged nothing, before: a request that failed at one upstream and
    succeeded at the next is told of twice. Its key makes it be done once; a hold that is finished is known for a day,
    and later words about it change nothing. Both rows are on the ledger.
    """
    asked = _COMMITS.get(settlement[NAME])
    if asked is None or line.split(" ")[WORD] != FINISHED.word:
        return None
    finished, amount = asked.read(line), asked.asks(settlement, "amount")
    given_back = finished["state"] == "released" or (
        finished["state"] == "committed" and str(finished["charged"]) == "0"
    )
    if not given_back or not amount or amount == "0":
        return None
    reservation_id = subject_of(settlement)
    told = operations.members("Told after its reservation was given back", {"reservation_id": reservation_id})
    key = operations.Asked(f"afterwards {reservation_id}", told)
    user_id = str(finished["user_id"])
    if asked is operations.COMMIT:
        return operations.deduct(user_id, int(amount), "partial", key)
    usage = (asked.asks(settlement, "usage") or "").replace(f",{NO_MODEL} ", " ", 1)
    return priced.deduct_usage(user_id, usage, "partial", key, amount=int(amount))


def without_price(settlement: Operation, line: str) -> Operation | None:
    """The commit of all that is held, for a usage that its card has no price for; None where it had one. What was used
    is never free for want of a line.
    """
    if settlement[NAME] != priced.COMMIT_USAGE.name or line.split(" ")[WORD] not in _UNPRICED:
        return None
    reservation_id = subject_of(settlement)
    usage = priced.COMMIT_USAGE.asks(settlement, "usage")
    _log.error(
        "a usage has no price, all that is held is charged", reservation_id=reservation_id, usage=usage, why=line
    )
    return operations.commit(reservation_id, None, priced.COMMIT_USAGE.asks(settlement, "over") or "cap")


def read_usage(text: str) -> Number | None:
    """A number of credits that is not negative; None for anything else."""
    return read_number(text.strip().encode("ascii", "replace"))


def read_usages(text: str) -> Number | None:
    """The same of a log. nginx lists one for each upstream that it tried (`-, 7 : 7`), and a header may have been there
    more than once: the last that tells anything counts.
    """
    parts = [part.strip() for part in text.replace(" : ", ",").split(",")]
    numbers = [read_usage(part) for part in parts if part not in ("", "-")]
    told = [number for number in numbers if number is not None]
    if not told or len(told) < len(numbers):
        return None
    return next((number for number in reversed(told) if number), 0)


def read_status(text: str) -> int | None:
    """An HTTP status, also as `502.0` or `502 Bad Gateway`; None where there was no response: `0`, `-1`, `-`. nginx
    lists one status per upstream: the last.
    """
    found = _STATUS.match(_last(text))
    return int(found[1]) if found is not None else None


def is_status(text: str) -> bool:
    """Whether a text tells a status, or that there was none."""
    last = _last(text)
    return _STATUS.match(last) is not None or _NO_STATUS.fullmatch(last) is not None


def _last(text: str) -> str:
    return text.replace(":", ",").split(",")[-1].strip()
