"""What `meter repartition` does: looks whether it may, asks, moves, and reports."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict

import orjson
import typer
from rich.console import Console
from rich.progress import Progress, TaskID

from meter.amount import AmountScale
from meter.cli.operate import in_credits, ledger_log_of
from meter.config import Settings
from meter.engine.redis import RedisGateway
from meter.errors import ConfigError, StoreDenied
from meter.health.presence import (
    MISSING_AFTER_SECONDS,
    SIDECAR_MISSING_AFTER_SECONDS,
    Presences,
    alive,
    serving,
)
from meter.ledger.numbers import Numbers, numbers_of
from meter.ledger.repartition import Repartition, RepartitionReport
from meter.ledger.serving import ServedElsewhere, check_served_here, claim
from meter.runtime import Runtime, addressed
from meter.store.base import Store, StoreMismatch

PARTITIONS_MAX = 1024


async def repartition(
    settings: Settings, partitions: int, actor: str, *, as_json: bool, agreed: Callable[[str], bool]
) -> int:
    """Changes the number of partitions; 0 when it is done, or was what it is."""
    if not 1 <= partitions <= PARTITIONS_MAX:
        raise ConfigError(f"{partitions} partitions: there may be 1 to {PARTITIONS_MAX}")
    runtime = Runtime(settings)
    if runtime.store is None:
        raise ConfigError("METER_STORE_URL=none: without a store there is nothing that could be moved")
    try:
        return await _repartition(runtime, runtime.store, partitions, actor, as_json=as_json, agreed=agreed)
    finally:
        await runtime.redis.close()
        await runtime.store.close()


async def _repartition(
    runtime: Runtime, store: Store, partitions: int, actor: str, *, as_json: bool, agreed: Callable[[str], bool]
) -> int:
    settings, redis = runtime.settings, runtime.redis
    numbers = await _opened(settings, store, redis)
    if numbers == Numbers(partitions):
        _say(RepartitionReport(partitions, partitions), AmountScale(settings.decimal_places), as_json=as_json)
        return 0
    try:
        await check_served_here(store, settings.redis_url, await store.watermark(0))
    except ServedElsewhere as elsewhere:
        raise ConfigError(f"{elsewhere}. Nothing was changed") from None
    with ledger_log_of(settings) as ledger, Progress(console=Console(stderr=True), transient=True) as progress:
        seen = _Seen(redis, settings.key_prefix)
        move = Repartition(settings, redis, store, numbers, seen.names, _Shown(progress).tell, ledger, actor)
        await move.check(partitions)
        progress.stop()
        if not agreed(_asked(numbers, partitions)):
            raise ConfigError(f"{_asked(numbers, partitions)}. Nothing was changed; --yes does it")
        progress.start()
        await move.drain()
        report = await move.run(partitions)
    await claim(store, settings.redis_url, time.time_ns() // 1_000_000)
    _say(report, AmountScale(settings.decimal_places), as_json=as_json)
    return 1 if report.lost else 0


async def _opened(settings: Settings, store: Store, redis: RedisGateway) -> Numbers:
    """Opens the store whatever number of partitions it has, and answers that."""

    async def once() -> None:
        await store.open({"decimal_places": str(settings.decimal_places)})
        await redis.ping()

    try:
        await addressed(settings, once)
    except (StoreMismatch, StoreDenied) as error:
        raise ConfigError(str(error)) from None
    numbers = await numbers_of(store)
    if numbers is None:
        raise ConfigError("nothing was ever served with this store: set METER_PARTITIONS as you like")
    return numbers


class _Seen:
    """Who is there."""

    def __init__(self, redis: RedisGateway, key_prefix: str) -> None:
        self._presences = Presences(redis, key_prefix)

    async def names(self) -> list[str]:
        """Sidecars and workers that were seen lately, in words."""
        now_ms = await self._presences.now_ms()
        workers, sidecars = await self._presences.everybody()
        found = [
            _words(f"the worker {one.worker_id}", now_ms - one.seen_at_ms, MISSING_AFTER_SECONDS)
            for one in alive(workers, now_ms)
        ]
        return found + [
            _words(f"the sidecar {one.sidecar_id}", now_ms - one.seen_at_ms, SIDECAR_MISSING_AFTER_SECONDS)
            for one in serving(sidecars, now_ms)
        ]


def _words(who: str, ago_ms: int, gone_after_seconds: float) -> str:
    ago = max(0, ago_ms) // 1000
    return f"{who} (seen {ago} s ago; one that was killed counts as gone after {gone_after_seconds:.0f} s)"


class _Shown:
    """A bar for each thing that is being done."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def tell(self, what: str, done: int) -> None:
        """Shows how far it is."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=None)
        self._progress.update(self._tasks[what], completed=done)


def _asked(numbers: Numbers, partitions: int) -> str:
    if numbers.then is not None:
        return f"it goes on from {numbers.now} to {partitions} partitions, and nothing is served meanwhile"
    return (
        f"from {numbers.now} to {partitions} partitions: nothing is served meanwhile, and versions of before do not "
        "start on it afterwards. Have a backup of the store"
    )


def _say(report: RepartitionReport, scale: AmountScale, *, as_json: bool) -> None:
    before, now = report.partitions_before, report.partitions
    if as_json:
        told = in_credits({**asdict(report), "set": f"METER_PARTITIONS={now}"}, scale)
        typer.echo(orjson.dumps(told))
        return
    if before == now:
        typer.echo(f"there are {now} partitions already: METER_PARTITIONS={now}")
        return
    for line in report.lost:
        typer.echo(f"lost: {line}")
    typer.echo(
        f"{report.accounts} accounts, {report.grants} grants, {report.reservations} open reservations, "
        f"{report.operations} idempotency keys, {report.api_keys} API keys; {scale.text(report.available)} available, "
        f"{scale.text(report.reserved)} reserved, {scale.text(report.debt)} of debt: the same as before, "
        f"{report.drifts} drifts ({report.seconds:.1f} s)"
    )
    typer.echo(f"there were {before} partitions, now {now}: set METER_PARTITIONS={now} for every process, and start it")
