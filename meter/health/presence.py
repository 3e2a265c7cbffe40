"""What each process tells of itself, in one hash of Redis: written every few seconds, read by whoever wants to know.

Beside the partitions and their scripts, so that a worker is seen while a partition is refused or the store is away, and
no request pays for it. Times are Redis' clock, which every process reads alike; the test clock moves none of them.

Everything is written when something happened; a worker that rests writes only that it is there, in a field of its own:
what is written grows Redis' append-only file, also where nobody uses it.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from meter.engine.redis import RedisGateway
from meter.keys import workers_key

BEAT_SECONDS = 10.0
"""A beat is about 90 bytes of Redis' append-only file: 0.8 MB a day. All that there is to tell is 600 bytes."""
MISSING_AFTER_SECONDS = 30.0
"""Two beats may be late before a worker counts as missing."""
SIDECAR_BEAT_SECONDS = 30.0
"""0.2 MB a day each. A sidecar that is gone is missed by whoever calls it, long before anybody reads of it here."""
SIDECAR_MISSING_AFTER_SECONDS = 90.0
FORGOTTEN_AFTER_SECONDS = 3600.0

_SEEN = " seen"  # no worker_id has a blank

Ms = Annotated[int, Field(ge=0)]


class JobRuns(BaseModel):
    """What became of the runs of one job in one process. `error` is that of the last run that failed."""

    model_config = ConfigDict(frozen=True)

    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    """All runs together."""
    ended_at_ms: Ms = 0
    error: str = ""


class Worker(BaseModel):
    """A worker process as it last told of itself."""

    model_config = ConfigDict(frozen=True)

    worker_id: str
    version: str
    started_at_ms: Ms
    seen_at_ms: Ms
    stopped: bool = False
    """It ended as it was told to."""
    flushed_at_ms: Mapping[int, Ms] = {}
    """When the store last took something of a partition from this worker."""
    flush_failures: Mapping[int, int] = {}
    """Steps of a partition's flush that failed."""
    jobs: Mapping[str, JobRuns] = {}
    deliveries: Mapping[str, int] = {}
    top_ups: Mapping[str, int] = {}
    """Attempts to deliver an alert, by outcome."""
    set_aside: Mapping[str, int] = {}
    """Rows that could not be handled, by what they are; the others went on."""


class Sidecar(BaseModel):
    """A sidecar process as it last told of itself. It has no `worker_id`, so that no reader takes it for a worker."""

    model_config = ConfigDict(frozen=True)

    sidecar_id: str
    version: str
    started_at_ms: Ms
    seen_at_ms: Ms


def process_id() -> str:
    """What a process is called: where it runs, and what tells it from those before and beside it."""
    return f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(2)}"


class Presences:
    """The processes of one deployment."""

    def __init__(self, redis: RedisGateway, key_prefix: str) -> None:
        self._redis = redis
        self._key = workers_key(key_prefix)

    async def now_ms(self) -> int:
        """Redis' own time. Raises `RedisUnavailable`."""
        return await self._redis.time_ms()

    async def tell(self, worker: Worker) -> None:
        """Writes what a worker tells, and forgets those that ended long ago. Raises `RedisUnavailable`."""
        await self._redis.put_field(self._key, worker.worker_id, worker.model_dump_json(exclude_defaults=True))
        gone = [one.worker_id for one in await self.seen() if _is_forgotten(one, worker.seen_at_ms)]
        fields = [name for one in gone for name in (one, one + _SEEN)]
        if worker.stopped:
            fields.append(worker.worker_id + _SEEN)
        if fields:
            await self._redis.drop_fields(self._key, fields)

    async def beat(self, worker_id: str, seen_at_ms: int) -> None:
        """Writes that a worker is still there, and as it told. Raises `RedisUnavailable`."""
        await self._redis.put_field(self._key, worker_id + _SEEN, str(seen_at_ms))

    async def seen(self) -> list[Worker]:
        """Every worker that is remembered, the one seen last first. Raises `RedisUnavailable`."""
        return (await self.everybody())[0]

    async def everybody(self) -> tuple[list[Worker], list[Sidecar]]:
        """The same, and the sidecars."""
        fields = await self._redis.fields_of(self._key)
        found = [_read(text, fields.get(name + _SEEN, b"")) for name, text in fields.items()]
        workers = sorted((one for one in found if one is not None), key=lambda one: one.seen_at_ms, reverse=True)
        told = [_sidecar(text, fields.get(name + _SEEN, b"")) for name, text in fields.items()]
        sidecars = [one for one in told if one is not None]
        return workers, sorted(sidecars, key=lambda one: one.seen_at_ms, reverse=True)

    async def tell_sidecar(self, sidecar: Sidecar, seen: Sequence[Sidecar]) -> None:
        """Writes that a sidecar is there, once more where it is among those `seen`, and forgets of these who were
        killed. Raises `RedisUnavailable`.
        """
        if any(one.sidecar_id == sidecar.sidecar_id for one in seen):
            await self.beat(sidecar.sidecar_id, sidecar.seen_at_ms)
        else:
            await self._redis.put_field(self._key, sidecar.sidecar_id, sidecar.model_dump_json())
        for gone in {one.sidecar_id for one in seen} - {one.sidecar_id for one in serving(seen, sidecar.seen_at_ms)}:
            if gone != sidecar.sidecar_id:
                await self.forget_sidecar(gone)

    async def forget_sidecar(self, sidecar_id: str) -> None:
        """What a sidecar does that ends. Raises `RedisUnavailable`."""
        await self._redis.drop_fields(self._key, [sidecar_id, sidecar_id + _SEEN])


def alive(workers: Iterable[Worker], now_ms: int) -> list[Worker]:
    """Those that have been seen lately and did not say goodbye."""
    since_ms = now_ms - int(1000 * MISSING_AFTER_SECONDS)
    return [one for one in workers if not one.stopped and one.seen_at_ms >= since_ms]


def serving(sidecars: Iterable[Sidecar], now_ms: int) -> list[Sidecar]:
    """Those that have been seen lately."""
    since_ms = now_ms - int(1000 * SIDECAR_MISSING_AFTER_SECONDS)
    return [one for one in sidecars if one.seen_at_ms >= since_ms]


def _sidecar(text: bytes, beat: bytes) -> Sidecar | None:
    if b'"sidecar_id"' not in text:
        return None
    try:
        told = Sidecar.model_validate_json(text)
    except ValidationError:
        return None
    return told.model_copy(update={"seen_at_ms": _later(told.seen_at_ms, beat)})


def _is_forgotten(worker: Worker, now_ms: int) -> bool:
    return worker.seen_at_ms < now_ms - int(1000 * FORGOTTEN_AFTER_SECONDS)


def _read(text: bytes, beat: bytes) -> Worker | None:
    """What a worker told, seen when it last beat; None for a beat itself, and for what another version wrote in a way
    that this one cannot read.
    """
    try:
        told = Worker.model_validate_json(text)
    except ValidationError:
        return None
    return told.model_copy(update={"seen_at_ms": _later(told.seen_at_ms, beat)})


def _later(told_ms: int, beat: bytes) -> int:
    return max(told_ms, int(beat)) if beat.isdigit() else told_ms
