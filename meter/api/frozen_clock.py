"""The calls that read and move the test clock."""

from __future__ import annotations

from meter.api.services import Services
from meter.clock import NEVER_MS, milliseconds
from meter.contract.requests import ClockRequest
from meter.engine import upkeep
from meter.engine.upkeep import CLOCK
from meter.http.exchange import Request
from meter.http.reading import read_actor, read_body, read_key
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
        """`PUT /test-clock`: the first partition decides, under the key if there is one; the others get its time.

        A repeated call moves nothing but partitions that the first one did not come to.
        """
        self._require_test_clock()
        body, key = read_body(ClockRequest, request, self._scale), read_key(request)
        read_actor(request)
        if body.now is not None:
            what, ms = "set", milliseconds(body.now)
            to_ms = ms
        else:
            what, ms = "advance", round((body.advance_seconds or 0) * 1000)
            to_ms = await self._engine.now_ms() + ms
        if to_ms >= NEVER_MS:
            return validation_problem([("/now", "must be before the year 2286")])
        if self._refusals is not None:
            await self._refusals.flush()  # under the time at which they were refused
        (line,) = await self._engine.run_many(0, (upkeep.clock(what, ms, key),))
        answer = CLOCK.read(line)
        if answer.ok:
            for number in range(1, self._settings.partitions):
                await self._engine.run_many(number, (upkeep.clock("set", answer.units("now_ms")),))
        return self._renderer.clock(line)

    def _require_test_clock(self) -> None:
        if not self._settings.test_clock:
            raise Answered(problem("not-found", "The test clock is off; METER_TEST_CLOCK=1 turns it on."))
