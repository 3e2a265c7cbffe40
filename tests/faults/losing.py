"""Faults with which Redis loses history that it had acknowledged, and rebuilds while everybody is at work."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis import Redis

from meter.dev.redis_server import find_server_binary
from tests.faults.checker.store_side import watermark_of
from tests.faults.deployment import until
from tests.faults.town import Town
from tests.servers import embedded_server


@asynccontextmanager
async def older_file(town: Town) -> AsyncIterator[None]:
    """An older append-only file comes back under live sidecars and workers."""
    files, kept = town.data / "redis" / "appendonlydir", town.data / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(files, kept)
    yield

    async def put_back() -> None:
        town.kill_redis()
        shutil.rmtree(files)
        shutil.copytree(kept, files)
        town.start_redis()

    await town.loss("older_file", put_back)


@asynccontextmanager
async def older_file_without_worker(town: Town) -> AsyncIterator[None]:
    """The same, and no worker is there to see it: the sidecars alone remember what they were told."""
    town.kill_workers()
    async with older_file(town):
        await asyncio.sleep(1.0)
        yield


@asynccontextmanager
async def snapshots_only(town: Town) -> AsyncIterator[None]:
    """Redis keeps snapshots and no append-only file, and is killed some time after one."""
    folder = town.data / "redis"
    town.client.config_set("appendonly", "no")
    town.client.save()
    yield

    async def from_snapshot() -> None:
        town.kill_redis()
        shutil.rmtree(folder / "appendonlydir", ignore_errors=True)
        wrapper = town.plan.folder / "redis-with-snapshots"
        wrapper.write_text(f'#!/bin/sh\nexec {find_server_binary()} "$@" --appendonly no\n')
        wrapper.chmod(0o755)
        town.start_redis(binary=wrapper)
        town.client.config_set("appendonly", "yes")
        await until(lambda: not town.client.info("persistence")["aof_rewrite_in_progress"], "there is a file again")

    await town.loss("snapshots_only", from_snapshot)


@asynccontextmanager
async def redis_emptied(town: Town) -> AsyncIterator[None]:
    yield

    async def flush_all() -> None:
        town.client.flushall()

    await town.loss("redis_emptied", flush_all)


@asynccontextmanager
async def stale_replica(town: Town) -> AsyncIterator[None]:
    """A replica that stopped hearing of its master takes its place."""
    folder = town.data / f"replica-{town.redis_port}"
    replica = embedded_server(folder, persist=True)
    replica.start()
    with Redis.from_url(replica.url) as to_replica:
        to_replica.replicaof("127.0.0.1", town.redis_port)
        await until(lambda: to_replica.info("replication").get("master_link_status") == "up", "the replica is in step")
        to_replica.replicaof("NO", "ONE")
    yield

    async def promote() -> None:
        town.kill_redis()
        old = town.data / "redis"
        replica.stop()
        shutil.rmtree(old)
        folder.rename(old)
        town.start_redis()

    await town.loss("stale_replica", promote)


@asynccontextmanager
async def entry_exchanged(town: Town) -> AsyncIterator[None]:
    """An entry of the outbox that the store does not have yet becomes another one, of the same seqs."""
    with town.stopped(*town.workers):
        yield
        outbox, client = "meter:{p0}:outbox", town.client
        _, stored_seq = await asyncio.to_thread(watermark_of, town.database)
        with town.stopped(*(one.pid for one in town.sidecars.values())):
            await asyncio.sleep(0.2)
            entries = client.xrange(outbox)
            name, members = entries[-1]  # the first ones a worker may have read before it was stopped
            assert int(name.split(b"-")[0]) > stored_seq
            text = re.sub(rb'^(\[2,\d+,\d+,"[^"]*",\d+,")[^"]*', rb"\1forged", members[b"e"])
            entries[-1] = (name, {b"e": text})
            pipeline = client.pipeline(transaction=True)
            pipeline.delete(outbox)
            for name, members in entries:
                pipeline.xadd(outbox, members, id=name)
            pipeline.execute()

    async def nothing_more() -> None:
        pass

    await town.loss("entry_exchanged", nothing_more)


@asynccontextmanager
async def rebuilt_live(town: Town) -> AsyncIterator[None]:
    """By hand, though nothing is lost; it may be told to try again while a flush goes on."""
    yield

    async def rebuild() -> None:
        async def is_done() -> bool:
            return await asyncio.to_thread(town.meter("rebuild").wait) == 0

        await until(is_done, "it is rebuilt")

    await town.loss("rebuilt_live", rebuild, loses=False)


@asynccontextmanager
async def rebuilt_twice_at_once(town: Town) -> AsyncIterator[None]:
    """Two by hand, and the workers' own, of an emptied Redis."""
    yield

    async def rebuild() -> None:
        town.client.flushall()
        both = [town.meter("rebuild") for _ in range(2)]
        await asyncio.gather(*(asyncio.to_thread(one.wait) for one in both))

    await town.loss("rebuilt_twice_at_once", rebuild)


def is_rebuilding(town: Town) -> bool:
    """Whether somebody is in the middle of it."""
    return bool(town.client.hget("meter:{p0}:meta", "state") == b"rebuilding")


@asynccontextmanager
async def rebuild_killed(town: Town) -> AsyncIterator[None]:
    """An emptied Redis; whoever rebuilds it is killed in the middle, three times: the command, and the workers."""
    yield

    async def rebuild() -> None:
        town.client.flushall()
        for _ in range(3):
            one = town.meter("rebuild")
            is_over = lambda one=one: one.poll() is not None or is_rebuilding(town)  # noqa: E731
            await until(is_over, "somebody rebuilds")
            one.kill()
            one.wait()
            town.kill_workers()
            town.bear()

    await town.loss("rebuild_killed", rebuild)
