"""Faults of disks and of the store."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.faults.town import Town


def fill(disk: Path) -> None:
    """Leaves no room on it. What is written between the look and the mount makes the mount fail: it is tried again."""
    for room_kibibytes in (4, 4, 16, 64, 256, 1024):
        used = shutil.disk_usage(disk).used // 1024 + room_kibibytes
        command = ["mount", "-o", f"remount,size={used}k", str(disk)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
    raise AssertionError(f"{command}: {done.stderr}")


def make_room(disk: Path) -> None:
    """As much as there was."""
    subprocess.run(["mount", "-o", "remount,size=4g", str(disk)], check=True)


@asynccontextmanager
async def disk_full(town: Town) -> AsyncIterator[None]:
    """Of Redis, and of SQLite where that is the store."""
    assert town.disk is not None
    fill(town.disk)
    yield
    make_room(town.disk)


@asynccontextmanager
async def disk_full_always(town: Town) -> AsyncIterator[None]:
    """With `appendfsync always` Redis ends itself when it cannot write."""
    assert town.disk is not None
    town.client.config_set("appendfsync", "always")
    fill(town.disk)
    yield
    make_room(town.disk)
    if not town.server.is_alive:
        town.server.stop()
        town.start_redis()
    town.client.config_set("appendfsync", "everysec")


@asynccontextmanager
async def store_locked(town: Town) -> AsyncIterator[None]:
    other = sqlite3.connect(town.data / "meter.db", isolation_level=None, timeout=30, check_same_thread=False)
    await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


@asynccontextmanager
async def store_slow(town: Town) -> AsyncIterator[None]:
    """SQLite is locked three quarters of the time; the way to PostgreSQL takes 100 ms."""

    async def go_on() -> None:
        while True:
            async with store_locked(town):
                await asyncio.sleep(0.3)
            await asyncio.sleep(0.1)

    if town.store_link is not None:
        town.store_link.delay_seconds = 0.1
        yield
        town.store_link.delay_seconds = 0.0
        return
    locking = asyncio.create_task(go_on())
    yield
    locking.cancel()
    await asyncio.wait((locking,))


@asynccontextmanager
async def store_killed(town: Town) -> AsyncIterator[None]:
    assert town.postgres is not None
    await asyncio.to_thread(town.postgres.kill)
    yield
    await asyncio.to_thread(town.postgres.start)


@asynccontextmanager
async def store_refuses(town: Town) -> AsyncIterator[None]:
    assert town.store_link is not None
    await town.store_link.cut()
    yield
    await town.store_link.restore()


@asynccontextmanager
async def store_in_a_black_hole(town: Town) -> AsyncIterator[None]:
    assert town.store_link is not None
    town.store_link.freeze()
    yield
    town.store_link.thaw()


@asynccontextmanager
async def store_replies_reset(town: Town) -> AsyncIterator[None]:
    """Whether a commit was done nobody knows then."""
    assert town.store_link is not None
    town.store_link.loses = (0.1, "reset")
    yield
    town.store_link.loses = (0.0, "reset")
