"""arq's Redis: its keys under ours, with the time limits that its own settings lack, and what its user must be allowed.

arq knows its keys by constants, `arq:queue` and so on. They go out as `<METER_KEY_PREFIX>:arq:queue`, so that two
deployments can share a Redis and one pattern covers all that a deployment has.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from arq.connections import ArqRedis
from arq.jobs import Job
from redis.asyncio import ConnectionPool

from meter.config import Settings
from meter.engine.connect import connect, connection_options, kind_of_connection
from meter.engine.redis import RedisGateway
from meter.engine.redis_faults import QUEUE, REDIS
from meter.engine.redis_url import reader_of, tls_of, without_credentials
from meter.engine.rights import Who, why_denied
from meter.errors import ConfigError, RedisDenied, RedisUnavailable, RedisUnknown
from meter.keys import nobodys_key, queue_prefix
from meter.redis_urls import RedisPlace, place_of

QUEUE_TIMEOUT_SECONDS = 5
QUEUE_CONNECT_TIMEOUT_SECONDS = 2

CRON = "cron:"
"""What arq's names of jobs begin with that its clock starts."""
_ARQ = ("arq:queue", "arq:job:", "arq:result:", "arq:retry:", "arq:in-progress:", "arq:abort")


class Queue(ArqRedis):
    """arq's connections. What arq's clock would put into the queue is left out while nothing of it is due: each job in
    it grows Redis' append-only file by 600 bytes and wakes its worker three times.
    """

    is_due: Callable[[str, int], Awaitable[bool]] | None = None
    """Whether the job of that name will have anything to do in so many milliseconds; None: nobody knows."""

    async def enqueue_job(self, function: str, *args: Any, **options: Any) -> Job | None:
        if self.is_due is not None and function.startswith(CRON):
            at: datetime | None = options.get("_defer_until")
            ahead_ms = 0 if at is None else max(0, round((at - datetime.now(UTC)).total_seconds() * 1000))
            if not await self.is_due(function.removeprefix(CRON), ahead_ms):
                return None
        return await super().enqueue_job(function, *args, **options)


def queue_pool(settings: Settings) -> Queue:
    """arq's connections. Raises `ConfigError` when it has no Redis of its own beside a cluster."""
    place, tls = queue_place(settings), tls_of(settings)
    read_again, url = reader_of(settings.arq_url, settings.arq_url_file), place.server()
    pool = ConnectionPool.from_url(
        url if read_again is None else without_credentials(url),
        socket_timeout=QUEUE_TIMEOUT_SECONDS,
        socket_connect_timeout=QUEUE_CONNECT_TIMEOUT_SECONDS,
        **connection_options(url, tls, read_again),
    )
    kind = kind_of_connection(place, pool.connection_class, tls)
    pool.connection_class = _under(queue_prefix(settings.key_prefix), kind)
    return Queue(connection_pool=pool, job_serializer=to_json, job_deserializer=orjson.loads)


def to_json(job: dict[str, object]) -> bytes:
    """arq's job as JSON, never pickle; an exception among the results becomes its text."""
    return orjson.dumps(job, default=repr)


def queue_place(settings: Settings) -> RedisPlace:
    """Where arq's Redis is. Raises `ConfigError` where that is a cluster: arq's keys are in many slots."""
    place = place_of(settings.arq_url)
    if place.kind == "cluster":
        raise ConfigError(
            f"{QUEUE}: METER_REDIS_URL is a Redis Cluster, on which arq's jobs cannot be: name a Redis of their own, "
            "redis://host:6379/0"
        )
    return place


def queue_variable(settings: Settings) -> str:
    """The variable that names arq's Redis."""
    return QUEUE if settings.queue_url else REDIS


async def check_queue(settings: Settings, redis: RedisGateway | None = None) -> None:
    """Raises `ConfigError` when arq's user may not do what arq does, `RedisUnavailable` when nobody can tell."""
    queue_place(settings)
    gateway = redis or connect(
        settings.arq_url,
        timeout_seconds=QUEUE_TIMEOUT_SECONDS,
        connections_max=1,
        tls=tls_of(settings),
        read_again=reader_of(settings.arq_url, settings.arq_url_file),
    )
    prefix = settings.key_prefix
    keys = [f"{queue_prefix(prefix)}{name.removeprefix('arq:')}" for name in _ARQ]
    try:
        refused = await _refused(gateway, nobodys_key(prefix), keys)
    except RedisDenied as error:
        raise ConfigError(str(error).replace(REDIS, queue_variable(settings), 1)) from None
    except RedisUnknown as error:
        raise RedisUnknown("redis", str(error).replace(REDIS, queue_variable(settings), 1)) from None
    finally:
        if redis is None:
            await gateway.close()
    if refused:
        raise ConfigError(why_denied(queue_variable(settings), refused, prefix))


async def _refused(gateway: RedisGateway, key: str, keys: Sequence[str]) -> list[str]:
    try:
        return await gateway.refusals((Who.QUEUE,), key, keys)
    except RedisDenied:
        raise
    except RedisUnavailable:
        await gateway.check_scheme()
        raise


def _under(prefix: str, connection: type[Any]) -> type[Any]:
    """The kind of connection that sends arq's keys under a prefix."""

    def named(argument: Any) -> Any:
        if isinstance(argument, str) and argument.startswith(_ARQ):
            return prefix + argument.removeprefix("arq:")
        return argument

    class Prefixing(connection):  # type: ignore[misc]
        def pack_command(self, *arguments: Any) -> Any:
            return super().pack_command(*map(named, arguments))

        def pack_commands(self, commands: Any) -> Any:
            return super().pack_commands([tuple(map(named, command)) for command in commands])

    return Prefixing
