"""The calls about the deployment itself: whether it works, by one look at its parts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from meter.api.services import Services
from meter.clock import utc_time
from meter.contract import system
from meter.engine.redis import RedisGateway
from meter.errors import MeterError, RedisUnavailable
from meter.health.doctor import findings_of
from meter.health.evidence import gathered
from meter.health.presence import alive, serving
from meter.health.status import Facts, Name, Status, oldest_seconds
from meter.health.watch import PACKAGE
from meter.http.exchange import Request
from meter.http.reading import read_query
from meter.http.rendered import Rendered, answer


class SystemHandlers:
    """One coroutine per call: a request in, its answer out."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def system_status(self, _: Request) -> Rendered:
        """`GET /system/status`: answers whatever is away."""
        status = await self._services.watch.look_and_try()
        facts, settings = status.facts, self._services.settings
        now_ms = facts.now_ms or time.time_ns() // 1_000_000
        told = system.SystemStatus(
            state=status.word,
            sentence=sentence_of(status),
            version=version(PACKAGE),
            as_of=utc_time(now_ms),
            processes=self._processes(facts, now_ms),
            redis=await self._redis(facts),
            outbox=system.OutboxFigures(
                waiting=sum(one.backlog for one in facts.partitions),
                oldest_ms=round(1000 * oldest_seconds(facts)),
                limit=settings.outbox_max,
            ),
            store=await self._store(facts),
            warnings=status.faults,
        )
        return answer(200, told)

    async def doctor(self, request: Request) -> Rendered:
        """`GET /system/doctor`"""
        query, services = read_query(system.DoctorQuery, request, self._services.scale), self._services
        evidence = await gathered(services.settings, services.redis, services.watch, os.environ)
        found = findings_of(evidence, query.only or "")
        items = [system.Finding.model_validate(one._asdict()) for one in found]
        return answer(200, system.Findings(items=items, failed=sum(one.level == "fail" for one in found)))

    def _processes(self, facts: Facts, now_ms: int) -> list[system.Process]:
        own = self._services.watch.sidecar(now_ms)
        sidecars = {one.sidecar_id: one for one in (*serving(facts.sidecars, now_ms), own)}
        found = [
            ("sidecar", one.sidecar_id, one.version, one.started_at_ms, one.seen_at_ms) for one in sidecars.values()
        ]
        found += [
            ("worker", one.worker_id, one.version, one.started_at_ms, one.seen_at_ms)
            for one in alive(facts.workers, now_ms)
        ]
        return [
            system.Process.model_validate(
                {"kind": kind, "id": id_, "version": told, "started_at": utc_time(since), "seen_at": utc_time(seen)}
            )
            for kind, id_, told, since, seen in sorted(found)
        ]

    async def _redis(self, facts: Facts) -> system.RedisFigures:
        unknown = system.RedisFigures(
            reachable=not facts.redis_fault, us_per_op=None, memory_bytes=None, memory_share=None, aof_ok=None
        )
        if facts.redis_fault:
            return unknown
        try:
            servers = await self._services.redis.servers()
            infos = [info for one in servers if (info := await one.info())]
            us_per_op = await self._us_per_op(servers)
        except RedisUnavailable:
            return unknown
        if not infos:
            return unknown
        shares = [share for info in infos if (share := _memory_share(info)) is not None]
        return system.RedisFigures(
            reachable=True,
            us_per_op=us_per_op,
            memory_bytes=max(int(info.get("used_memory", 0)) for info in infos),
            memory_share=max(shares, default=None),
            aof_ok=all(map(_writes_all, infos)),
        )

    async def _us_per_op(self, servers: Sequence[RedisGateway]) -> float | None:
        """Redis' time for a script call, by how many operations this process sent in one."""
        counts = self._services.engine.counts
        calls = sum(sum(one.batch_operations.counts) for one in counts)
        operations = sum(one.batch_operations.total for one in counts)
        times = [found for one in servers if (found := await one.script_times())]
        if not times or not operations:
            return None
        return round(max(usec / max(1, called) for called, usec in times) * calls / operations, 1)

    async def _store(self, facts: Facts) -> system.StoreFigures:
        store, url = self._services.store, self._services.settings.store_url
        if store is None or facts.store_fault is None:
            return system.StoreFigures(kind="none", rows=None, reachable=False)
        kind = url.partition(":")[0].partition("+")[0]
        rows = None
        if not facts.store_fault:
            try:
                rows = sum(mark.seq for mark in await store.watermarks())
            except MeterError:
                facts = Facts(store_fault="away")
        return system.StoreFigures(kind=kind, rows=rows, reachable=not facts.store_fault)


def sentence_of(status: Status) -> str:
    """How it is, in words."""
    faults, store = status.faults, status.parts[Name.STORE]
    if status.word == "unavailable":
        return f"Not serving: {faults[0]}"
    if store.detail:
        return f"Serving, but adds are refused: {store.detail}"
    return f"Serving.{_count_of(faults)}"


def _count_of(faults: Sequence[str]) -> str:
    if not faults:
        return ""
    words: Iterable[str] = ("One thing needs", "Two things need", "Three things need")
    return f" {dict(enumerate(words, 1)).get(len(faults), f'{len(faults)} things need')} somebody."


def _memory_share(info: dict[str, str]) -> float | None:
    most = int(info.get("maxmemory", 0))
    return round(int(info.get("used_memory", 0)) / most, 4) if most else None


def _writes_all(info: dict[str, str]) -> bool:
    return info.get("aof_enabled") == "1" and info.get("aof_last_write_status", "ok") == "ok"
