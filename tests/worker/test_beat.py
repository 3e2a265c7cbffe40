"""What a worker that rests tells of itself: that it is there, and no more; everything again when something happened."""

from __future__ import annotations

import asyncio

import pytest

from meter.health.presence import Presences
from meter.worker import beat as module
from meter.worker.beat import Beat
from meter.worker.context import Context
from tests.servers import Server

KEY = "meter:workers"


async def test_a_worker_that_rests_writes_only_that_it_is_there(ctx: Context, server: Server) -> None:
    server.client.delete(KEY)
    beat = Beat(ctx)
    await beat._tell()
    (name,) = server.client.hkeys(KEY)
    whole = server.client.hget(KEY, name)

    async def takes_its_time() -> int:
        await asyncio.sleep(0.005)
        return 0

    for _ in range(2):
        ctx["runs"].nothing_due("expire")  # a look that found nothing is nothing to tell
        await ctx["runs"].run("allocate", takes_its_time)  # nor is how long one took
        await beat._tell()
        whole = whole if b"expire" in whole else server.client.hget(KEY, name)
    assert server.client.hget(KEY, name) == whole
    assert server.client.hlen(KEY) == 2
    (seen,) = await Presences(ctx["runtime"].redis, "meter").seen()
    assert seen.seen_at_ms == int(server.client.hget(KEY, name + b" seen"))
    assert seen.seen_at_ms >= seen.started_at_ms
    server.client.delete(KEY)


async def test_what_happened_is_told_whole_and_so_is_the_goodbye(
    ctx: Context, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.client.delete(KEY)
    beat = Beat(ctx)

    async def fail() -> int:
        raise ValueError("a bug")

    async def told() -> dict[str, int]:
        await beat._tell()
        (one,) = await Presences(ctx["runtime"].redis, "meter").seen()
        return {name: job.failed for name, job in one.jobs.items()}

    assert await told() == {}
    await ctx["runs"].run("remind", fail)
    assert await told() == {"remind": 1}
    await told()
    assert server.client.hlen(KEY) == 2
    monkeypatch.setattr(module, "TELL_AGAIN_SECONDS", 0.0)  # what only counts is told now and then
    ctx["runs"].nothing_due("expire")
    assert "expire" in await told()
    await beat.close()
    (one,) = await Presences(ctx["runtime"].redis, "meter").seen()
    assert one.stopped
    assert server.client.hlen(KEY) == 1
    server.client.delete(KEY)
