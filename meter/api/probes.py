"""Probes, metrics, and the pages that problems point to."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import orjson
from prometheus_client.core import Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meter.api.health_metrics import status_metrics
from meter.api.metrics import Metrics
from meter.api.siblings import Siblings
from meter.contract.problems import PROBLEMS
from meter.health.presence import Worker
from meter.health.status import Status
from meter.health.watch import Watch
from meter.http.draining import Drain
from meter.http.exchange import Request
from meter.http.rendered import Answered, Rendered, problem


class Probes:
    """`/livez`, `/readyz`, `/metrics`, `/problems/{slug}`."""

    def __init__(
        self, watch: Watch, metrics: Metrics, told: Callable[[], Worker] | None = None, drain: Drain | None = None
    ) -> None:
        """`told` is what the worker counted whose probes these are; `drain` knows whether the process is to end."""
        self._watch = watch
        self._metrics = metrics
        self._told = told
        self._drain = drain
        self._status: Status | None = None
        self.siblings: Siblings | None = None
        """The other processes of this address, where there are some."""
        metrics.shown(self._families)

    async def livez(self, _: Request) -> Rendered:
        """The process answers; says nothing about Redis, so that an outage there does not restart us."""
        return Rendered(200, b'{"status":"ok"}')

    async def readyz(self, _: Request) -> Rendered:
        """200 with each part and what stops where one fails, "degraded" while charging goes on; else 503 with them. 503
        too from the signal to end on, though everything is served as ever until nobody listens any more.
        """
        seconds = None if self._drain is None else self._drain.seconds_left
        if seconds is not None:
            return problem("draining", f"This process was told to end, and serves for {seconds:.1f} s more.")
        status = await self._watch.look_and_try()
        parts = orjson.dumps(status.document()).decode()
        if status.word != "unavailable":
            return Rendered(200, f'{{"status":"{status.word}","parts":{parts}}}'.encode())
        faults = orjson.dumps(status.faults).decode()
        return problem("metering-unavailable", status.faults[0], f'"faults":{faults},"parts":{parts}')

    async def metrics(self, request: Request) -> Rendered:
        """What this process counted, or all of this address, and how the parts are, for Prometheus."""
        self._status = await self._watch.look()
        told = None if self.siblings is None else await self.siblings.told()
        body, content_type = self._metrics.render(request.headers.get(b"accept", b"").decode("latin-1"), told)
        return Rendered(200, body, content_type.encode())

    def _families(self) -> Iterable[Metric]:
        return (
            () if self._status is None else status_metrics(self._status, None if self._told is None else self._told())
        )

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
