"""Probes and the pages that problems point to."""

from __future__ import annotations

import orjson

from meter.api.exchange import Refused, Request
from meter.engine import Engine
from meter.problem import PROBLEMS
from meter.wire import Rendered, problem


class Probes:
    """`/livez`, `/readyz`, `/problems/{slug}`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def livez(self, _: Request) -> Rendered:
        """The process answers; says nothing about Redis, so that an outage there does not restart us."""
        return Rendered(200, b'{"status":"ok"}')

    async def readyz(self, _: Request) -> Rendered:
        """200 when every partition decides; else 503 with each fault."""
        faults = await self._engine.faults()
        if faults:
            return problem("metering-unavailable", faults[0], f'"faults":{orjson.dumps(faults).decode()}')
        return Rendered(200, b'{"status":"ok"}')

    async def problem(self, request: Request) -> Rendered:
        """What a problem type means and what to do about it."""
        kind = PROBLEMS.get(request.path["slug"])
        if kind is None:
            raise Refused(problem("not-found", "There is no such problem type."))
        text = {"type": kind.type, "title": kind.title, "status": kind.status, "code": kind.code, "remedy": kind.remedy}
        return Rendered(200, orjson.dumps(text))
