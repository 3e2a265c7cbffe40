"""Probes, metrics, and the pages that problems point to."""

from __future__ import annotations

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meter.api.metrics import Metrics
from meter.contract.problems import PROBLEMS
from meter.engine.engine import Engine
from meter.http.exchange import Request
from meter.http.rendered import Answered, Rendered, problem


class Probes:
    """`/livez`, `/readyz`, `/metrics`, `/problems/{slug}`."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics

    async def livez(self, _: Request) -> Rendered:
        """The process answers; says nothing about Redis, so that an outage there does not restart us."""
        return Rendered(200, b'{"status":"ok"}')

    async def readyz(self, _: Request) -> Rendered:
        """200 when every partition decides; else 503 with each fault."""
        faults = await self._engine.faults()
        if faults:
            return problem("metering-unavailable", faults[0], f'"faults":{orjson.dumps(faults).decode()}')
        return Rendered(200, b'{"status":"ok"}')

    async def metrics(self, request: Request) -> Rendered:
        """What this process counted, for Prometheus."""
        body, content_type = self._metrics.render(request.headers.get(b"accept", b"").decode("latin-1"))
        return Rendered(200, body, content_type.encode())

    async def problem(self, request: Request) -> Rendered:
        """What a problem type means and what to do about it."""
        kind = PROBLEMS.get(request.path["slug"])
        if kind is None:
            raise Answered(problem("not-found", "There is no such problem type."))
        text = {"type": kind.type, "title": kind.title, "status": kind.status, "code": kind.code, "remedy": kind.remedy}
        return Rendered(200, orjson.dumps(text))


class CountedResponses:
    """ASGI middleware that counts answers by status."""

    def __init__(self, app: ASGIApp, counts: dict[int, int]) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counts[message["status"]] += 1
            await send(message)

        await self._app(scope, receive, counted)
