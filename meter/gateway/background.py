"""Settlements that nobody waits for: done when Redis can, tried again while it cannot, within bounds."""

from __future__ import annotations

import asyncio
from collections import deque
from logging import getLogger

from meter.engine.engine import Engine
from meter.engine.operations import Operation
from meter.errors import MeterError, Unavailable
from meter.gateway.counts import GatewayTally, Way
from meter.gateway.logs import Outcome

WAITING_MAX = 10_000
"""Settlements that wait for Redis; beyond that the oldest is dropped, and its hold ends by itself."""
RETRY_PAUSE_SECONDS = 0.5
RETRIES_PER_TURN = 200

_log = getLogger("meter.gateway")


class Settler:
    """Runs commits and releases in the background. A repeated one is answered as before, so trying again is safe."""

    def __init__(self, engine: Engine, tally: GatewayTally) -> None:
        self._engine = engine
        self._tally = tally
        self._waiting: deque[tuple[Operation, Way]] = deque(maxlen=WAITING_MAX)
        self._timer: asyncio.TimerHandle | None = None
        self.outcome = Outcome()

    def settle(self, one: Operation, way: Way) -> None:
        """Ends the hold that the operation is about."""
        try:
            self._engine.submit_for_reservation(one[4], one, lambda line: self._heard(one, way, line))
        except Unavailable:
            self._retry_later(one, way)

    def close(self) -> None:
        """Gives up what still waits."""
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting:
            _log.error("%d reservations were not settled; their holds end by themselves", len(self._waiting))

    def _heard(self, one: Operation, way: Way, line: str | MeterError) -> None:
        if isinstance(line, Unavailable):
            self._retry_later(one, way)
            return
        self._tally.settled(way, one, line)
        if isinstance(line, MeterError):
            self.outcome.failed += 1
            _log.error("reservation %s was not settled: %s", one[4], line)
        else:
            failed = self.outcome.failed
            self.outcome.count(line)
            if self.outcome.failed > failed:
                _log.warning("reservation %s was not settled: %s", one[4], line[2:])

    def _retry_later(self, one: Operation, way: Way) -> None:
        if len(self._waiting) == WAITING_MAX:
            self.outcome.failed += 1
            self._tally.dropped["settlement",] += 1
        self._waiting.append((one, way))
        self._arm()

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(RETRY_PAUSE_SECONDS, self._retry)

    def _retry(self) -> None:
        self._timer = None
        for _ in range(min(RETRIES_PER_TURN, len(self._waiting))):
            self.settle(*self._waiting.popleft())
        if self._waiting:
            self._arm()
