"""Composition root: settings in, a Starlette application with its lifespan out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from logging import getLogger

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import Mount

from meter.amount import AmountScale
from meter.api.exchange import Coroutine, Request
from meter.api.handlers import coroutines_of
from meter.api.hot import Services
from meter.api.probes import Probes
from meter.api.routes import header_list, routes, surface_routes
from meter.config import Settings
from meter.engine import Engine
from meter.errors import Unavailable
from meter.redis import RedisGateway, connect
from meter.surface import CREDITS
from meter.wire import Rendered, Renderer, problem

_log = getLogger("meter")


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


async def check_partitions(settings: Settings) -> None:
    """Raises `ConfigError` when Redis holds partitions made with other settings; a Redis that is away is waited for
    while serving.
    """
    gateway = gateway_of(settings)
    try:
        await services_of(settings, gateway).engine.open_partitions()
    except Unavailable as error:
        _log.warning("not ready yet: %s", error)
    finally:
        await gateway.close()


def create_app(settings: Settings, redis: RedisGateway | None = None) -> Starlette:
    """The sidecar. With `redis` given (tests), its owner closes it."""
    gateway = redis or gateway_of(settings)
    services = services_of(settings, gateway)
    coroutines = coroutines_of(services)
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
        ],
        settings.body_max_bytes,
    )
    return Starlette(
        routes=[
            *plain,
            *surface_routes(coroutines, "", settings.body_max_bytes),
            Mount(CREDITS, routes=surface_routes(coroutines, CREDITS, settings.body_max_bytes)),
        ],
        lifespan=lifespan,
        exception_handlers={HTTPException: _http_problem},
    )


def credits_app(coroutines: Mapping[str, Coroutine], body_max_bytes: int) -> Starlette:
    """The routes of `/credits` alone, to be mounted in another application whose owner starts the engine."""
    return Starlette(
        routes=surface_routes(coroutines, CREDITS, body_max_bytes),
        exception_handlers={HTTPException: _http_problem},
    )


async def _not_implemented(_: Request) -> Rendered:
    return problem("not-implemented", "Plans come with a later version.")


async def _http_problem(_: StarletteRequest, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    slug = {404: "not-found", 405: "method-not-allowed"}.get(status, "internal-error")
    rendered = problem(slug, "There is nothing at this path.")
    headers = {name.decode(): value.decode() for name, value in header_list(rendered)}
    return Response(rendered.body, rendered.status, headers)
