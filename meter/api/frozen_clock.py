"""The calls that read and move the test clock."""

from __future__ import annotations

from meter.api.services import Services
from meter.clock import NEVER_MS, milliseconds
from meter.contract.requests import ClockRequest
from meter.engine import upkeep
from meter.http.exchange import Request
from meter.http.reading import read_body
from meter.http.rendered import Answered, Rendered, problem, validation_problem


class ClockHandlers:
    """One coroutine per call: a request in, its answer out. Raises `Answered` or a `MeterError`."""

    def __init__(self, services: Services) -> None:
        self._engine = services.engine
        self._settings = services.settings
        self._scale = services.scale
        self._refusals = services.refusals
        self._renderer = services.renderer

    async def clock(self, request: Request) -> Rendered:
        """`GET /test-clock`"""
        self._require_test_clock()
        return self._renderer.clock((await self._engine.run_many(0, (upkeep.clock(),)))[0])

    async def set_clock(self, request: Request) -> Rendered:
        """`PUT /test-clock`: every partition gets the same time."""
        self._require_test_clock()
        body = read_body(ClockRequest, request, self._scale)
        if body.now is not None:
            to_ms = milliseconds(body.now)
        else:
            to_ms = await self._engine.now_ms() + round((body.advance_seconds or 0) * 1000)
        if to_ms >= NEVER_MS:
            return validation_problem([("/now", "must be before the year 2286")])
        if self._refusals is not None:
            await self._refusals.flush()  # under the time at which they were refused
        lines = [
            (await self._engine.run_many(number, (upkeep.clock("set", to_ms),)))[0]
            for number in range(self._settings.partitions)
        ]
        return self._renderer.clock(lines[0])

    def _require_test_clock(self) -> None:
        if not self._settings.test_clock:
            raise Answered(problem("not-found", "The test clock is off; METER_TEST_CLOCK=1 turns it on."))
