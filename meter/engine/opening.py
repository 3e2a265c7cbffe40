"""Opening partitions: whether this Redis may be served at all, and whether each partition is the store's own.

Until then, and where it is not, no batch is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from meter.config import Settings
from meter.engine.batcher import Batcher
from meter.engine.fitness import OVERRIDE, faults_of, is_replica
from meter.engine.history import NO_STORE, NOWHERE, Place, why_refused
from meter.engine.programs import open_program
from meter.engine.redis import RedisGateway
from meter.engine.redis_faults import REDIS
from meter.engine.rights import Who, why_denied
from meter.errors import (
    ConfigError,
    ForeignLedger,
    MeterError,
    PartitionRefused,
    RedisDenied,
    RedisUnavailable,
    StoreUnavailable,
    Unavailable,
)
from meter.keys import SCHEMA, PartitionKeys, console_key, nobodys_key, workers_key
from meter.log import without_password
from meter.redis_urls import Kind, place_of

OPEN_PAUSE_SECONDS = 0.25

_32_BIT = (
    "METER_REDIS_URL: this Redis is a 32-bit build, whose scripts cut amounts off above 2147483647: use a 64-bit one"
)

Watermark = Place
"""The last transaction of a partition that the store has."""

_ALSO: dict[Kind, tuple[Who, ...]] = {"server": (), "cluster": (Who.NODE,), "sentinel": (Who.LED,)}

NO_WATERMARK: Watermark = NOWHERE

WatermarkOf = Callable[[int], Awaitable[Watermark]]

LedgerOf = Callable[[], Awaitable[str]]
"""The id of the store's ledger. Raises `StoreUnavailable`."""


class Opening:
    """Opens the partitions of one engine, and says why one is barred."""

    def __init__(
        self,
        redis: RedisGateway,
        settings: Settings,
        partitions: Sequence[PartitionKeys],
        batchers: Sequence[Batcher],
        watermark_of: WatermarkOf | None,
        ledger_of: LedgerOf | None,
    ) -> None:
        self._redis = redis
        self._settings = settings
        self._partitions = partitions
        self._batchers = batchers
        self._watermark_of = watermark_of or _no_watermark
        self._ledger_of = ledger_of or _no_ledger
        self.ledger = ""
        """The id of the store's ledger as it was last told; "" while nobody knows, `NO_STORE` without one."""
        self._program = open_program()
        self._is_fit = False
        self._unopened = set(range(len(partitions)))
        self._trying: asyncio.Task[None] | None = None
        self.before: tuple[int, ...] = ()
        """How many partitions there were before `meter repartition`, one time after the other; mostly never others."""

    async def start(self) -> None:
        """Opens the partitions; while Redis or the store is away, goes on trying in the background.

        Raises `ConfigError` for what no waiting mends, `ForeignLedger` among them, after which a rebuild may be wanted.
        """
        try:
            await self.open_all()
        except RedisDenied as error:
            raise ConfigError(str(error)) from None
        except Unavailable:
            self._trying = asyncio.create_task(self._try_on(), name="meter-open")

    def close(self) -> None:
        """Stops trying."""
        if self._trying is not None:
            self._trying.cancel()

    async def open_all(self) -> None:
        """Makes each partition that neither Redis nor the store knows, once per process; one that vanishes later is
        lost, not new. One whose history is not the store's is closed.

        Raises `ConfigError` for other settings, and an `Unavailable` for what has to be tried again.
        """
        await self._check_server()
        failed: Unavailable | None = None
        for number in sorted(self._unopened):
            try:
                await self._open(number)
            except Unavailable as error:
                failed = failed or error
            else:
                self._unopened.discard(number)
        if failed is not None:
            raise failed

    async def _check_server(self) -> None:
        """Raises `ConfigError` for a Redis that may lose balances in silence, `RedisUnavailable` for a replica."""
        if self._is_fit:
            return
        try:
            servers = await self._redis.servers()
            infos = [await server.info() or {} for server in servers]
        except RedisDenied:
            raise
        except RedisUnavailable:
            await self._redis.check_scheme()
            raise
        if len(servers) == 1 and is_replica(infos[0]):
            self._bar(RedisUnavailable("replica", "METER_REDIS_URL is a read-only replica: name its master"))
        for server, info in zip(servers, infos, strict=True):
            await self._check_rights(server)
            faults = [] if self._settings.redis_unsafe else faults_of(info)
            if faults:
                which = f"the node {server.name}" if server.name else "this Redis"
                fault = f"METER_REDIS_URL: {which} must not hold balances: {'; '.join(faults)}. {OVERRIDE}"
                self._bar(PartitionRefused("settings", fault))
        self._is_fit = True

    async def _check_rights(self, server: RedisGateway) -> None:
        """Raises `RedisDenied` when its user may not do all that scripts and processes do. Of the partitions after the
        first one key each is asked for: there may be a thousand of them.
        """
        prefix = self._settings.key_prefix
        keys = [*self._partitions[0].all, *(partition.meta for partition in self._partitions[1:])]
        keys += [workers_key(prefix), console_key(prefix), *self._settings.notify_streams]
        who = [Who.SCRIPT, Who.PROCESS, *_ALSO[place_of(self._settings.redis_url).kind]]
        who += [Who.WAITING] if self._settings.wait_replicas else []
        refused = await server.refusals(who, nobodys_key(prefix), keys)
        if refused:
            where = f"{REDIS}: node {server.name}" if server.name else REDIS
            self._bar(RedisDenied("redis", why_denied(where, refused, prefix)))

    def _bar(self, why: Unavailable) -> NoReturn:
        """Serves nothing, and says why."""
        for batcher in self._batchers:
            batcher.barred = why
        raise ConfigError(str(why)) if why.reason == "settings" else why

    async def _open(self, number: int) -> None:
        try:
            ledger, watermark, how = await self._ledger_of(), await self._watermark_of(number), "create"
            self.ledger = ledger
        except Unavailable:  # spending does not wait for the store; starting afresh does
            ledger, watermark, how = "", NO_WATERMARK, "check"
        word, _, rest = (await self.run(number, how, watermark, ledger)).partition(" ")
        if word == "foreign":
            fault = _foreign(self._settings, number, rest, ledger)
            self._batchers[number].barred = PartitionRefused("ledger", fault)
            raise ForeignLedger(fault)
        if word == "mismatch":
            name, _, value = rest.partition(" ")
            fault = (
                f"Redis holds partition {number} made with {name}={value}; this process has "
                f"{_own_value(name, self._settings)}. Set METER_{name.upper()}={value} or use another Redis."
            )
            if name == "partitions":
                fault += " `meter repartition` changes their number."
            self._batchers[number].barred = PartitionRefused("settings", fault)
            raise ConfigError(fault)
        if word == "unfit":
            self._bar(PartitionRefused("settings", _32_BIT))
        self._batchers[number].barred = None
        if word == "lost" and how == "check" and rest == "missing meta":
            raise StoreUnavailable(
                f"partition {number} is not in Redis, and the store cannot be asked whether it is new"
            )
        if word == "lost":
            raise PartitionRefused("partition", why_refused(self._partitions[number], "refused", f"lost {rest}"))
        if word == "present":
            self.before = tuple(int(count) for count in rest.split())
        self._batchers[number].remember(watermark)
        if ledger:
            self._redis.keep_to(self._partitions[number].meta, ledger)
        if how == "check":
            raise StoreUnavailable(f"partition {number} was not compared with the store")

    async def run(self, number: int, how: str, watermark: Watermark, ledger: str, before: str = "") -> str:
        """Runs lua/open.lua, which documents the answer, `how`, `ledger` and `before`."""
        keys, settings = self._partitions[number], self._settings
        arguments = (SCHEMA, settings.decimal_places, settings.partitions, how, *watermark, ledger, before)
        return await self._redis.run(self._program, keys.all, arguments)

    def rebuilds(self, number: int) -> None:
        """Lets batches of a rebuild through to a partition that was barred as another ledger's."""
        self._batchers[number].barred = None

    @property
    def foreign(self) -> str:
        """Why the store is not this Redis', "" where it is, or nobody knows."""
        barred = (batcher.barred for batcher in self._batchers)
        return next((str(why) for why in barred if why is not None and why.reason == "ledger"), "")

    def compare_with(self, ledger: str) -> None:
        """Store or Redis is seen to have that ledger. When it was another one before, every partition is opened anew
        before anything more is decided.
        """
        is_same = not self.ledger or not ledger or ledger == self.ledger
        if is_same or (self._trying is not None and not self._trying.done()):
            return
        for batcher in self._batchers:
            was = "no" if self.ledger == NO_STORE else self.ledger
            batcher.barred = PartitionRefused("ledger", f"ledger {ledger} is where {was} ledger was")
        self._unopened = set(range(len(self._batchers)))
        self._trying = asyncio.create_task(self._try_on(), name="meter-open")

    async def _try_on(self) -> None:
        while self._unopened:
            await asyncio.sleep(OPEN_PAUSE_SECONDS)
            try:
                await self.open_all()
            except MeterError:
                continue  # readyz says why; a batch is refused meanwhile


async def _no_watermark(_: int) -> Watermark:
    return NO_WATERMARK


async def _no_ledger() -> str:
    return NO_STORE


def _foreign(settings: Settings, number: int, theirs: str, ours: str) -> str:
    """Why partition and store do not belong together, with both their places and a remedy."""
    if ours == NO_STORE:
        whose = f"belongs to ledger {theirs}" if theirs != "-" else "has transactions that a store knows"
        return (
            f"METER_STORE_URL=none, and partition {number} of METER_REDIS_URL={without_password(settings.redis_url)} "
            f"{whose}. Nothing was changed: name the store that this Redis is served with, or an empty Redis or a "
            "METER_KEY_PREFIX of its own"
        )
    redis, store = without_password(settings.redis_url), without_password(settings.store_url)
    whose = f"belongs to ledger {theirs}" if theirs != "-" else "has a history that this store knows nothing of"
    return (
        f"METER_STORE_URL={store} is ledger {ours}, and partition {number} of METER_REDIS_URL={redis} {whose}. "
        "Nothing was changed: name the store that this Redis is served with, or the Redis of this store "
        "(a new one needs an empty Redis or a METER_KEY_PREFIX of its own)"
    )


def _own_value(name: str, settings: Settings) -> str:
    own = {"schema": SCHEMA, "decimal_places": settings.decimal_places, "partitions": settings.partitions}
    return str(own[name])
