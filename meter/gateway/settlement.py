"""What a request has used, as a gateway tells it, and what becomes of its hold for that."""

from __future__ import annotations

from dataclasses import dataclass, field

from meter.amount import AmountScale
from meter.charging.amounts import plain, rounded_up
from meter.charging.policy import ChargePolicy, Ending, Missing, Verdict, verdict_on
from meter.charging.settlements import BackgroundSettlements
from meter.engine import operations
from meter.engine.answers import subject_of
from meter.engine.engine import Engine
from meter.engine.operations import Operation
from meter.errors import InvalidAmount, MeterError, Unavailable
from meter.gateway.counts import GatewayCounts, Way
from meter.usage.number import Number, read_number

CLIENT_CLOSED_REQUEST = 499
"""What nginx logs when the client left before the response began."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended. `status` is None when there was no response."""

    status: int | None = 200
    usage: Number | None = None
    ending: Ending = Ending.CLEAN


@dataclass(frozen=True, slots=True)
class Told:
    """An outcome and whose hold it ends: the reservation, or the user and the request that it was made for."""

    reservation_id: str | None = None
    user_id: str | None = None
    request_id: str | None = None
    outcome: Outcome = field(default_factory=Outcome)


class SettlementRules:
    """Turns what a gateway saw into the operation that ends the hold. The hold stands for the estimate."""

    def __init__(self, scale: AmountScale, on_missing_usage: str, counts: GatewayCounts) -> None:
        self._scale = scale
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
        return operations.commit(reservation_id, self._units(verdict.amount), self._policy.over)

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

    def __init__(self, engine: Engine, counts: GatewayCounts) -> None:
        self._engine = engine
        self._counts = counts
        self._background = BackgroundSettlements(counts.gave_up)

    def settle(self, settlement: Operation, way: Way) -> None:
        """Ends the hold that the operation is about: asked at once, and again in the background while Redis is away."""

        def heard(line: str | MeterError) -> None:
            if isinstance(line, Unavailable):
                self._again(settlement, way)
            else:
                self._counts.settled(way, settlement, line)

        try:
            self._engine.submit_for_reservation(subject_of(settlement), settlement, heard)
        except Unavailable:
            self._again(settlement, way)

    async def close(self) -> None:
        """Waits a little for what is under way; what is still undecided then ends by itself."""
        await self._background.drain()

    def _again(self, settlement: Operation, way: Way) -> None:
        async def attempt() -> None:
            line = await self._engine.run_for_reservation(subject_of(settlement), settlement)
            self._counts.settled(way, settlement, line)

        self._background.settle(attempt, f"reservation {subject_of(settlement)}")


def read_usage(text: str) -> Number | None:
    """A number of credits that is not negative; None for anything else."""
    return read_number(text.strip().encode("ascii", "replace"))


def read_status(text: str) -> int | None:
    """An HTTP status; None for `0`, `-1`, `-`: there was no response. nginx lists one status per upstream: the last."""
    last = text.replace(":", ",").split(",")[-1].strip()
    return int(last) if len(last) == 3 and last.isascii() and last.isdigit() and last >= "100" else None
