"""Composition root: settings in, an application with its lifespan out; by parts, routes and application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, Route

from meter.amount import AmountScale
from meter.api.attempts import KeyAttempts
from meter.api.gate import ADMIN_READ, ADMIN_WRITE, Gate
from meter.api.handlers import Handlers, handlers_of
from meter.api.lane.protocol import HotLane
from meter.api.metrics import Metrics
from meter.api.payment_events import PaymentEvents
from meter.api.plain_bodies import PlainBodies
from meter.api.probes import CountedResponses, Probes
from meter.api.rendering import Renderer
from meter.api.routes import PROBLEM_HANDLERS, call_routes, routes
from meter.api.services import Services
from meter.api.siblings import Siblings
from meter.config import Settings
from meter.console.site import Site, site_of
from meter.contract.call import CREDITS, ME, SYSTEM
from meter.engine.redis import RedisGateway
from meter.gateway.handlers import GatewayHandlers
from meter.http.bounded import Bounds
from meter.http.browsers import BrowserGuard, Guarded, Shared, is_loopback
from meter.http.draining import Drain
from meter.http.endpoint import AnyMethod
from meter.http.exchange import Coroutine, Handler, awaitable
from meter.http.request_id import Identified
from meter.jobs import Jobs
from meter.openapi.host import mounted_docs
from meter.openapi.page import docs_routes
from meter.runtime import Runtime
from meter.store.base import Store


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that one sidecar consists of; nothing of it is started yet."""

    settings: Settings
    runtime: Runtime
    handlers: Handlers
    gateway: GatewayHandlers
    metrics: Metrics
    jobs: Jobs
    drain: Drain
    gate: Gate | None = None
    """Who looks at the keys of callers, where somebody does."""

    def hot(self, handler: Handler) -> Handler:
        """What gateways call, behind the gate."""
        return handler if self.gate is None else self.gate.hot(ADMIN_WRITE, handler)

    def coroutine(self, scope: str, run: Coroutine) -> Coroutine:
        """Another path that is not for everybody."""
        return run if self.gate is None else self.gate.coroutine(scope, run)


def services_of(runtime: Runtime) -> Services:
    """Everything that handlers work with."""
    settings = runtime.settings
    scale = AmountScale(settings.decimal_places)
    jobs = Jobs(runtime, runtime.refusals)
    return Services(
        runtime.engine,
        runtime.redis,
        runtime.store,
        settings,
        scale,
        Renderer(scale),
        PlainBodies(scale),
        jobs,
        runtime.watch,
        KeyAttempts(settings.key_failures_max),
        runtime.kept_refusals,
    )


def create_app(
    settings: Settings,
    redis: RedisGateway | None = None,
    store: Store | None = None,
    *,
    processes_folder: Path | None = None,
) -> Starlette:
    """The sidecar. A `redis` or `store` that is given (tests) is closed by its owner. `processes_folder` is where it
    meets the other processes of its address, where there are some.
    """
    parts = parts_of(Runtime(settings, redis, store, role="sidecar"))
    siblings = None if processes_folder is None else Siblings(processes_folder, parts.metrics.told)
    return application_of(parts, siblings)


def parts_of(runtime: Runtime) -> Parts:
    """The handlers on a runtime, and the metrics that show what they count."""
    services = services_of(runtime)
    gateway = GatewayHandlers(services)
    metrics = Metrics(services.engine.counts, lambda: services.engine.waiting)
    gateway.counts.show(metrics.counted)
    handlers = handlers_of(services)
    gate = Gate(services) if services.settings.auth == "keys" else None
    if runtime.refusals is not None:
        text = "Lines of refusals that the ledger log had to drop."
        metrics.counted("meter_ledger_dropped_lines", text, (), runtime.refusals.drops)
    if runtime.kept_refusals is not None:
        text = "Refusals that the store was not given, because there were too many or it was away."
        metrics.counted("meter_refusals_dropped", text, (), runtime.kept_refusals.drops)
    handlers = handlers if gate is None else gate.over(handlers)
    drain = Drain(runtime.settings.drain_seconds)
    return Parts(runtime.settings, runtime, handlers, gateway, metrics, services.jobs, drain, gate)


def routes_of(parts: Parts, siblings: Siblings | None = None) -> list[BaseRoute]:
    """Every path of the sidecar."""
    settings, gateway = parts.settings, parts.gateway
    probes = Probes(parts.runtime.watch, parts.metrics, drain=parts.drain)
    probes.siblings = siblings
    plain = [
        ("GET", "/livez", probes.livez),
        ("GET", "/readyz", probes.readyz),
        ("GET", "/metrics", parts.coroutine(ADMIN_READ, probes.metrics)),
        ("GET", "/problems/{slug}", probes.problem),
        ("POST", "/payments/events", PaymentEvents(parts.jobs).event),
    ]
    return [
        *routes(plain, settings.body_max_bytes),
        Route("/gateway/authorize", AnyMethod(awaitable(parts.hot(gateway.authorize)))),
        Route("/gateway/authorize/{rest:path}", AnyMethod(awaitable(parts.hot(gateway.authorize)))),
        Route("/gateway/commit", AnyMethod(awaitable(parts.hot(gateway.commit)))),
        *routes(
            [("POST", "/gateway/logs", parts.coroutine(ADMIN_WRITE, gateway.logs.logs))],
            settings.gateway_logs_max_bytes,
        ),
        *docs_routes(settings),
        *console_of(parts).routes(),
        *call_routes(parts.handlers.coroutines, "", settings.body_max_bytes),
        *call_routes(parts.handlers.coroutines, ME, settings.body_max_bytes, below=ME),
        *call_routes(parts.handlers.coroutines, SYSTEM, settings.body_max_bytes, below=SYSTEM),
        *call_routes(parts.handlers.coroutines, CREDITS, settings.body_max_bytes, below=CREDITS),
    ]


def console_of(parts: Parts) -> Site:
    """The console, which makes the calls of `/credits` in this process as whoever is logged in."""
    engine, redis = parts.runtime.engine, parts.runtime.redis
    return site_of(parts.settings, parts.handlers.coroutines, parts.gate, redis, engine.now_ms)


def application_of(parts: Parts, siblings: Siblings | None = None) -> Starlette:
    """The routes with the lifespan that starts and stops the parts, and with the hot lane."""
    settings, gateway = parts.settings, parts.gateway

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with parts.runtime, parts.jobs, gateway.listening(settings), siblings or contextlib.nullcontext():
            with parts.drain.put_off():
                yield

    origins = settings.allowed_origins.replace(",", " ").split()
    guard = BrowserGuard(
        is_local=is_loopback(settings.host) and not settings.uds,  # no browser opens a unix socket
        hosts=settings.allowed_hosts.replace(",", " ").split(),
        origins=origins,
    )
    app = Starlette(
        routes=routes_of(parts, siblings),
        lifespan=lifespan,
        middleware=[
            Middleware(Identified),
            Middleware(CountedResponses, parts.metrics.responses),
            Middleware(Guarded, guard),
            *([Middleware(Shared, origins)] if origins else []),
        ],
        exception_handlers=PROBLEM_HANDLERS,
    )
    app.router.redirect_slashes = False  # a path that is not ours is a problem, not a redirect
    of_gateway = {"authorize": parts.hot(gateway.authorize), "commit": parts.hot(gateway.commit)}
    app.state.hot_lane = HotLane(
        parts.handlers.hot, settings.body_max_bytes, parts.metrics.responses, guard, of_gateway
    )
    app.state.bounds = bounds_of(settings)
    return app


def bounds_of(settings: Settings) -> Bounds:
    """What one connection may take."""
    return Bounds(
        settings.head_max_bytes,
        settings.headers_max,
        settings.head_timeout_seconds,
        settings.body_timeout_seconds,
        settings.connections_max,
    )


def credits_app(coroutines: Mapping[str, Coroutine], settings: Settings) -> Starlette:
    """The routes of `/credits` alone, with their document and page, to be mounted in another application, whose owner
    starts the engine.
    """
    return Starlette(
        routes=[*mounted_docs(settings), *call_routes(coroutines, CREDITS, settings.body_max_bytes)],
        middleware=[Middleware(Identified)],
        exception_handlers=PROBLEM_HANDLERS,
    )
