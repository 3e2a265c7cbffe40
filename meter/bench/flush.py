"""`meter bench flush`: how fast the outbox goes into a store, how late it is under load, how fast Redis comes back.

Everything is in this one process, the load too; a worker of its own has a core more. The plain baseline for PostgreSQL
writes the rows of the same run with COPY and INSERT … ON CONFLICT alone: what no flusher can be faster than.
"""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from meter.bench.ground import Ground
from meter.bench.machine import machine
from meter.bench.options import FlushBenchOptions
from meter.bench.plain_copy import is_postgres, plain_rate
from meter.bench.report import console, print_machine
from meter.bench.samples import percentile
from meter.bench.stores import display_url, store_url
from meter.bench.traffic import user_name
from meter.dev.redis_server import EmbeddedServer
from meter.engine import operations
from meter.engine.operations import Asked, Operation
from meter.heap import collect_garbage_rarely
from meter.ledger.rebuild import Rebuild
from meter.store.base import Store
from meter.store.connect import open_store

if TYPE_CHECKING:
    from meter.ledger.flusher import Flusher


TICK_SECONDS = 0.01
LAG_GOAL_SECONDS = 2.0
_ASKED = Asked("", operations.members("POST /v1/chat/completions", {"model": "small", "tokens": 812}))


@dataclass(slots=True)
class FlushResult:
    """What was measured; None where it was not asked for or has no meaning."""

    store: str
    transactions: int = 0
    flush_per_second: float = 0.0
    plain_per_second: float | None = None
    lag_rate: float | None = None
    """Deducts a second that were reached while the lag was measured."""
    lag_p50_seconds: float | None = None
    lag_p99_seconds: float | None = None
    rebuilt_accounts: int | None = None
    rebuild_per_second: float | None = None
    steps_ms: list[float] = field(default_factory=list)


def run(options: FlushBenchOptions) -> int:
    """See `meter.bench.run_flush_bench`."""
    out = console()
    found = machine()
    with tempfile.TemporaryDirectory(prefix="meter-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        url = store_url(options.store, folder, stack)
        server = stack.enter_context(EmbeddedServer(data_dir=folder / "redis"))
        result, redis = asyncio.run(_measure(options, server.url, url, out))
    print_machine(out, found, redis, "flusher and load in one process")
    _print(out, result)
    now = datetime.now(UTC)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{now:%Y-%m-%dT%H%M%SZ}-flush.json"
    members = {"at": now.isoformat(), "machine": {**found, "redis": redis}, "flush": asdict(result)}
    path.write_text(json.dumps(members, indent=2) + "\n", encoding="utf-8")
    out.print(f"{path}")
    return 0


async def _measure(options: FlushBenchOptions, redis_url: str, url: str, out: Console) -> tuple[FlushResult, str]:
    store = open_store(url)
    result = FlushResult(display_url(url))
    async with Ground(redis_url) as ground:
        settings = ground.settings
        await store.open({"decimal_places": str(settings.decimal_places), "partitions": str(settings.partitions)})
        try:
            from meter.ledger.flusher import Flusher  # noqa: PLC0415 - nothing in `meter` but commands knows the workers

            flusher = Flusher(ground.gateway, ground.engine, store, ground.keys, settings)
            with out.status("filling the outbox"):
                await ground.give(user_name(number) for number in range(options.users))
                await _drain(flusher)
                await ground.run(traffic(ground, options.transactions, options.users))
            collect_garbage_rarely()  # as a worker does
            with out.status("flushing"):
                await _flush(flusher, result)
            if is_postgres(url):
                with out.status("plain COPY"):
                    result.plain_per_second = await plain_rate(url, settings.flush_max)
            if options.lag_seconds:
                with out.status(f"lag at {options.lag_rate} deducts a second"):
                    await _lag(ground, flusher, options, result)
            if options.rebuild_accounts:
                with out.status("rebuilding"):
                    await _rebuild(ground, flusher, store, options, result)
        finally:
            await store.close()
        return result, ground.version


def traffic(ground: Ground, count: int, users: int) -> Iterator[Operation]:
    """Operations with one transaction each, as an API that streams makes them: deducts, holds, their ends."""
    chance = random.Random(1)
    held: deque[str] = deque()
    for _ in range(count):
        user, lot = user_name(chance.randrange(users)), chance.random()
        if lot < 0.5:
            yield operations.deduct(user, chance.randint(1, 5000), asked=_ASKED)
        elif lot < 0.75 or not held:
            held.append(ground.engine.new_reservation_id(user))
            yield operations.reserve(user, held[-1], 5000, 300_000, chosen=False, asked=_ASKED)
        elif lot < 0.97:
            yield operations.commit(held.popleft(), chance.randint(0, 6000), asked=_ASKED)
        else:
            yield operations.release(held.popleft())


async def _drain(flusher: Flusher) -> int:
    total = 0
    while moved := await flusher.step():
        total += moved
    return total


async def _flush(flusher: Flusher, result: FlushResult) -> None:
    started = time.perf_counter()
    while True:
        before = time.perf_counter()
        moved = await flusher.step()
        if not moved:
            break
        result.transactions += moved
        result.steps_ms.append(round((time.perf_counter() - before) * 1000, 2))
    result.flush_per_second = result.transactions / (time.perf_counter() - started)


async def _lag(ground: Ground, flusher: Flusher, options: FlushBenchOptions, result: FlushResult) -> None:
    """Time from a deduct's acknowledgement until the store has it."""
    acknowledged: deque[tuple[float, int]] = deque()  # when, and how many by then
    lags: list[float] = []
    done = asyncio.Event()

    async def flush() -> None:
        flushed = 0
        while not (done.is_set() and not acknowledged):
            moved = await flusher.step()
            flushed += moved
            now = time.perf_counter()
            while acknowledged and acknowledged[0][1] <= flushed:
                lags.append(now - acknowledged.popleft()[0])
            if moved:  # as meter/ledger/supervisor.py paces it
                await asyncio.sleep(ground.settings.flush_interval_ms / 1000)
            else:
                await flusher.wait()

    flushing = asyncio.create_task(flush())
    started, sent = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < options.lag_seconds:
        due = int(spent * options.lag_rate) - sent
        if due > 0:
            chunk = min(due, ground.settings.batch_max)
            await ground.run(operations.deduct(user_name((sent + n) % options.users), 1) for n in range(chunk))
            sent += chunk
            acknowledged.append((time.perf_counter(), sent))
        else:
            await asyncio.sleep(TICK_SECONDS)
    result.lag_rate = sent / (time.perf_counter() - started)
    done.set()
    await flushing
    lags.sort()
    result.lag_p50_seconds, result.lag_p99_seconds = percentile(lags, 50), percentile(lags, 99)


async def _rebuild(
    ground: Ground, flusher: Flusher, store: Store, options: FlushBenchOptions, result: FlushResult
) -> None:
    """Redis emptied and made again from the store."""
    await ground.give(f"idle-{number}" for number in range(options.rebuild_accounts))
    await _drain(flusher)
    ground.client.flushall()
    rebuild = Rebuild(ground.engine, ground.gateway, store, ground.settings.idempotency_window_seconds * 1000)
    report = await rebuild.partition(0)
    result.rebuilt_accounts = report.accounts
    result.rebuild_per_second = report.accounts / report.seconds


def _print(out: Console, result: FlushResult) -> None:
    table = Table(title=f"Flush into {result.store}", title_justify="left", show_header=False)
    table.add_row(f"transactions a second, {result.transactions:,} of them", f"{result.flush_per_second:,.0f}")
    if result.plain_per_second is not None:
        share = result.flush_per_second / result.plain_per_second
        table.add_row("the same rows by plain COPY and INSERT … ON CONFLICT", f"{result.plain_per_second:,.0f}")
        table.add_row("share of that", f"{share:.0%}")
    if result.lag_p99_seconds is not None and result.lag_rate is not None:
        met = "met" if result.lag_p99_seconds < LAG_GOAL_SECONDS else "not met"
        table.add_row(
            f"lag at {result.lag_rate:,.0f} deducts a second: p50, p99 (goal < {LAG_GOAL_SECONDS:g} s)",
            f"{result.lag_p50_seconds:.3f} s, {result.lag_p99_seconds:.3f} s ({met})",
        )
    if result.rebuild_per_second is not None:
        table.add_row(f"accounts rebuilt a second, {result.rebuilt_accounts:,}", f"{result.rebuild_per_second:,.0f}")
    out.print(table)
