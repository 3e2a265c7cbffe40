"""The jobs of meter/jobs.py as arq starts them: each until nothing is due. A run answers how much was done."""

from __future__ import annotations

from meter.worker.context import Context


async def expire(ctx: Context) -> int:
    """Ends credits and holds that are due, and books their ends."""
    return await ctx["jobs"].until_done("expire")


async def allocate(ctx: Context) -> int:
    """Grants every period of a subscription that has begun."""
    return await ctx["jobs"].until_done("allocate")


async def pending(ctx: Context) -> int:
    """Applies grants that are durable and that Redis does not seem to have."""
    return await ctx["jobs"].until_done("pending")


async def remind(ctx: Context) -> int:
    """Tells of credits that end soon."""
    return await ctx["jobs"].until_done("remind")


async def deliver(ctx: Context) -> int:
    """Delivers alerts. The worker does it all the time by itself; this is for whoever enqueues it."""
    return await ctx["jobs"].until_done("deliver")


async def rotate(ctx: Context) -> int:
    """Lets Redis forget what is older than the idempotency window."""
    return await ctx["jobs"].until_done("rotate")


async def rollup(ctx: Context) -> int:
    """Counts what the usage figures do not have yet."""
    return await ctx["jobs"].until_done("rollup")


async def top_up(ctx: Context) -> int:
    """Carries out requests for credits. The worker does it all the time by itself; this is for whoever enqueues it."""
    return await ctx["jobs"].until_done("top_up")


async def runway(ctx: Context) -> int:
    """Tells of credits that run out soon."""
    return await ctx["jobs"].until_done("runway")
