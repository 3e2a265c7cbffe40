"""Composition root: settings in, a Starlette application with its lifespan out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount

from meter.amount import AmountScale
from meter.api.exchange import Request
from meter.api.hot import HotHandlers, Services
from meter.api.management import ManagementHandlers
from meter.api.probes import Probes
from meter.api.routes import credit_routes, header_list, routes
from meter.config import Settings
from meter.engine import Engine
from meter.redis import RedisGateway, connect
from meter.wire import Rendered, Renderer, problem


def gateway_of(settings: Settings) -> RedisGateway:
    """The connection to Redis; a call has half the budget, so that a lost reply can be asked for again."""
    return connect(
        settings.redis_url,
        timeout_seconds=settings.redis_timeout_ms / 2000,
        connections_max=settings.partitions * settings.lanes + 8,
    )


def services_of(settings: Settings, redis: RedisGateway) -> Services:
    """Everything that handlers work with; the engine is not started."""
    scale = AmountScale(settings.decimal_places)
    return Services(Engine(redis, settings), redis, settings, scale, Renderer(scale))


def create_app(settings: Settings, redis: RedisGateway | None = None) -> Starlette:
    """The sidecar. With `redis` given (tests), its owner closes it."""
    gateway = redis or gateway_of(settings)
    services = services_of(settings, gateway)
    hot = HotHandlers(services)
    management = ManagementHandlers(services, hot)
    probes = Probes(services.engine)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with services.engine:
            yield
        if redis is None:
            await gateway.close()

    plain = routes(
        [
            ("POST", "/credits/plans", _not_implemented),
            ("GET", "/livez", probes.livez),
            ("GET", "/readyz", probes.readyz),
            ("GET", "/problems/{slug}", probes.problem),
            ("GET", "/test-clock", management.clock),
            ("PUT", "/test-clock", management.set_clock),
        ],
        settings.body_max_bytes,
    )
    return Starlette(
        routes=[*plain, Mount("/credits", routes=credit_routes(services, hot, management))],
        lifespan=lifespan,
        exception_handlers={HTTPException: _http_problem},
    )


def credits_app(services: Services) -> Starlette:
    """The routes of `/credits` alone, to be mounted in another application; the engine is the caller's to start."""
    hot = HotHandlers(services)
    table: list[BaseRoute] = credit_routes(services, hot, ManagementHandlers(services, hot))
    return Starlette(routes=table, exception_handlers={HTTPException: _http_problem})


async def _not_implemented(_: Request) -> Rendered:
    return problem("not-implemented", "Plans come with a later version.")


async def _http_problem(_: StarletteRequest, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    slug = {404: "not-found", 405: "method-not-allowed"}.get(status, "internal-error")
    rendered = problem(slug, "There is nothing at this path.")
    headers = {name.decode(): value.decode() for name, value in header_list(rendered)}
    return Response(rendered.body, rendered.status, headers)
