"""What every job gets as `ctx`, and how a worker process opens and closes it."""

from __future__ import annotations

from typing import TypedDict

from meter.app import gateway_of
from meter.config import Settings
from meter.engine import Engine
from meter.redis import RedisGateway


class Context(TypedDict):
    """arq's job context with our members; arq adds its own, `redis` (its queue) among them."""

    settings: Settings
    gateway: RedisGateway
    engine: Engine


async def open_context(ctx: Context, settings: Settings, redis: RedisGateway | None = None) -> None:
    """Fills the context and starts its engine. With `redis` given (tests), its owner closes it."""
    gateway = redis or gateway_of(settings)
    ctx["settings"] = settings
    ctx["gateway"] = gateway
    ctx["engine"] = Engine(gateway, settings)
    await ctx["engine"].start()


async def close_context(ctx: Context) -> None:
    """Lets the engine finish, then closes the connections. Harmless when the context was never opened."""
    if "engine" in ctx:
        await ctx["engine"].close()
        await ctx["gateway"].close()
