"""What every process runs on: the gateway to Redis, the engine, and the durable store where there is one.

Opened and closed together. A Redis or a store that is away does not keep a process from starting: it goes on trying in
the background, and what needs the missing one is refused meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Literal, Self

from meter.amount import AmountScale
from meter.config import STORE_VARIABLE, Settings, variable_of_store
from meter.engine.connect import connect
from meter.engine.counts import RefusedOperation
from meter.engine.engine import Engine
from meter.engine.opening import NO_WATERMARK, Watermark
from meter.engine.redis import RedisGateway
from meter.engine.redis_url import reader_of, tls_of
from meter.errors import (
    ConfigError,
    RedisDenied,
    RedisUnknown,
    StoreDenied,
    StoreUnavailable,
    StoreUnknown,
    Unavailable,
)
from meter.health.watch import Watch
from meter.ledger.identity import kept_ledger, ledger_of
from meter.ledger.log_file import ledger_log
from meter.ledger.offering import Offering
from meter.ledger.refusals import Refusals
from meter.ledger.serving import claim
from meter.log import logger
from meter.store.base import Store, StoreMismatch

HOST_PAUSE_SECONDS = 0.5
STORE_OPEN_PAUSE_SECONDS = 0.5
CLAIM_PAUSE_SECONDS = 1.0

OnRefusals = Callable[[Sequence[RefusedOperation]], None]

_log = logger("meter")


Role = Literal["sidecar", "worker", "command"]
"""What a process is there for. A sidecar writes what it refuses to the ledger log; it and a worker watch all parts."""


class Runtime:
    """The parts of one process. Parts that are given (tests) are closed by their owner."""

    def __init__(
        self,
        settings: Settings,
        redis: RedisGateway | None = None,
        store: Store | None = None,
        *,
        role: Role = "command",
    ) -> None:
        self.settings = settings
        self.redis = redis or _gateway(settings)
        self.store = store if store is not None else _store(settings)
        asks = (None, None) if self.store is None else (self._watermark, self._ledger)
        self.engine = Engine(self.redis, settings, *asks)
        ping = None if self.store is None else self.ping_store
        offering = None
        if role == "sidecar" and self.store is not None:
            offering = Offering(self.engine, self.redis, self.store)
        self.watch = Watch(
            self.engine,
            self.redis,
            settings,
            ping,
            of_worker=role == "worker",
            see_partition=None if offering is None else offering.see,
        )
        self.refusals = ledger_log(settings) if role == "sidecar" else None
        self.kept_refusals = self._keeper(settings) if role == "sidecar" else None
        self._role = role
        self._is_logging = False
        self._owns_redis = redis is None
        self._owns_store = store is None
        self._store_open = False
        self._store_fault = StoreUnavailable("the store is not open yet")
        self._opening: asyncio.Task[None] | None = None
        self._claiming: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Opens the store and starts the engine; a second call waits for the first.

        Raises `ConfigError` when Redis or the store was made with other settings.
        """
        if self._started is None:
            self._started = asyncio.ensure_future(self._start())
        if not self._started.done():
            await asyncio.shield(self._started)
        self._started.result()

    async def close(self) -> None:
        """Lets accepted operations finish, then closes the connections."""
        await self.watch.close()
        if self._claiming is not None:
            self._claiming.cancel()
            await asyncio.gather(self._claiming, return_exceptions=True)
        if self._opening is not None:
            self._opening.cancel()
        await self.engine.close()
        if self.kept_refusals is not None:
            await self.kept_refusals.close()
        if self.refusals is not None and self._is_logging:
            self._is_logging = False
            await asyncio.to_thread(self.refusals.close)
        if self._owns_redis:
            await self.redis.close()
        if self.store is not None and self._owns_store and self._store_open:
            await self.store.close()

    async def check(self) -> None:
        """Opens store and partitions once, for a command that wants to fail early. Raises `ConfigError`."""

        async def once() -> None:
            await self.open_store()
            await self.engine.opening.open_all()

        try:
            await addressed(self.settings, once)
        except RedisDenied as error:
            raise ConfigError(str(error)) from None
        except Unavailable as error:
            _log.warning("not ready yet: it is waited for", why=str(error))

    async def _reach(self) -> None:
        """What `check` does for a process that goes on, for a command: a host may have no address yet."""

        async def once() -> None:
            await self.open_store()
            await self.redis.ping()

        with suppress(Unavailable):  # what comes next tells of it
            await addressed(self.settings, once)

    async def _start(self) -> None:
        self._tell_of_refusals()
        if self._role == "command":
            await self._reach()
        try:
            await self.open_store()
        except StoreUnavailable as error:
            self._store_fault = error
            self._opening = asyncio.create_task(self._open_store_when_possible(), name="meter-open-store")
        await self.engine.start()
        if self._role != "command":
            self.watch.start()
            self._claiming = asyncio.create_task(self._claim_when_open(), name="meter-claim")

    async def _claim_when_open(self) -> None:
        """Notes in the store which Redis it is served with, as soon as every partition is found to have its history."""
        while self.store is not None:
            try:
                if self._store_open and not await self.engine.faults():
                    await claim(self.store, self.settings.redis_url, time.time_ns() // 1_000_000)
                    return
            except Unavailable:
                pass  # the watch tells of it
            await asyncio.sleep(CLAIM_PAUSE_SECONDS)

    async def ping_store(self) -> None:
        """Returns when the store answers, and is the one that it was. Raises `StoreUnavailable`."""
        if self.store is None or not self._store_open:
            raise type(self._store_fault)(str(self._store_fault))
        await self.store.ping()
        self.engine.opening.compare_with(await kept_ledger(self.store) or "of no name")

    def _log_refusals(self) -> None:
        """Without the file, everything else is served all the same."""
        if self.refusals is None:
            return
        try:
            self.refusals.start()
        except OSError as error:
            _log.error("refusals are not logged, the ledger log cannot be opened", why=str(error))
            return
        self._is_logging = True

    def _tell_of_refusals(self) -> None:
        """What is refused goes to the ledger log and to the store, as far as there are such."""
        self._log_refusals()
        told = [self.refusals.refusals] if self.refusals is not None and self._is_logging else []
        if self.kept_refusals is not None:
            self.kept_refusals.start()
            told.append(self.kept_refusals.told)
        for counts in self.engine.counts:
            counts.on_refusals = _all_of(told)

    def _keeper(self, settings: Settings) -> Refusals | None:
        if self.store is None or not settings.refusals_keep_days:
            return None
        return Refusals(self.store, AmountScale(settings.decimal_places), self.engine.now_ms)

    async def open_store(self) -> None:
        """Opens the store, which gives it the schema of this version; not twice. Raises `StoreUnavailable`, and
        `ConfigError` where it refuses us or was made with other settings.
        """
        if self.store is None or self._store_open:
            return
        agreed = {"decimal_places": self.settings.decimal_places, "partitions": self.settings.partitions}
        try:
            await self.store.open({name: str(value) for name, value in agreed.items()})
        except StoreMismatch as error:
            raise ConfigError(str(error)) from error
        except StoreDenied as error:
            raise ConfigError(str(error).replace(STORE_VARIABLE, variable_of_store(os.environ), 1)) from None
        self._store_open = True

    async def _open_store_when_possible(self) -> None:
        while not self._store_open:
            await asyncio.sleep(STORE_OPEN_PAUSE_SECONDS)
            try:
                await self.open_store()
            except StoreUnavailable as error:
                self._store_fault = error
            except ConfigError as error:
                self._store_fault = StoreDenied(str(error))  # too late to refuse to start; adds stay refused

    async def _ledger(self) -> str:
        if self.store is None or not self._store_open:
            raise type(self._store_fault)(str(self._store_fault))
        return await ledger_of(self.store, self.redis, self.engine.partitions)

    async def _watermark(self, partition: int) -> Watermark:
        if self.store is None:
            return NO_WATERMARK
        if not self._store_open:
            raise type(self._store_fault)(str(self._store_fault))
        row = await self.store.watermark(partition)
        return NO_WATERMARK if row is None else (row.epoch, row.seq, row.head)


async def addressed(settings: Settings, attempt: Callable[[], Awaitable[None]]) -> None:
    """Does what a start does first. A host without an address, which an orchestrator may give it in a moment, is waited
    for as METER_START_WAIT_SECONDS says. Raises `ConfigError` when that is over, and what `attempt` raises.
    """
    wait_seconds = settings.start_wait_seconds
    deadline, is_told = time.monotonic() + wait_seconds, False
    while True:
        try:
            await attempt()
        except (RedisUnknown, StoreUnknown) as error:
            why = str(error).replace(STORE_VARIABLE, variable_of_store(os.environ), 1)
            if time.monotonic() >= deadline:
                raise ConfigError(
                    f"{why}; METER_START_WAIT_SECONDS={wait_seconds:g} are over: check the name, or wait longer"
                ) from None
            if not is_told:
                _log.warning("not ready yet: it is waited for", why=why, seconds=wait_seconds)
            is_told = True
            await asyncio.sleep(HOST_PAUSE_SECONDS)
        else:
            return


def _gateway(settings: Settings) -> RedisGateway:
    """The connection to Redis; a call has half the budget, so that a lost reply can be asked for again."""
    return connect(
        settings.redis_url,
        timeout_seconds=settings.redis_timeout_ms / 2000,
        connections_max=settings.partitions * settings.lanes + 8,
        tls=tls_of(settings),
        read_again=reader_of(settings.redis_url, settings.redis_url_file),
    )


def _store(settings: Settings) -> Store | None:
    if settings.store_url == "none":
        return None
    from meter.store.connect import open_store  # noqa: PLC0415 - database libraries take their time to import

    try:
        return open_store(settings.store_url, read_again=reader_of(settings.store_url, settings.store_url_file))
    except ConfigError as error:  # a store knows no environment
        raise ConfigError(str(error).replace(STORE_VARIABLE, variable_of_store(os.environ), 1)) from None


def _all_of(told: Sequence[OnRefusals]) -> OnRefusals | None:
    """One function in the place of several."""
    if len(told) < 2:
        return told[0] if told else None

    def tell(refused: Sequence[RefusedOperation]) -> None:
        for one in told:
            one(refused)

    return tell
