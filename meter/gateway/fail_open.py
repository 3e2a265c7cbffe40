"""Serving while nobody can decide, within bounds, where the owner prefers that to refusing (`METER_FAIL_MODE=open`).

A user whose balance this process was told of is served up to it: what was available when Redis last said so, less what
was served since. Whoever is not known is refused, as everybody is once the outage has lasted for
`METER_FAIL_OPEN_SECONDS`. Each request that is served so is noted on disk first (unmetered.py) and charged exactly once
when Redis is back, to the debt that the user may have, else with what there is; what remains is counted, and logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from meter.amount import AmountScale
from meter.config import Settings
from meter.engine import operations
from meter.engine.answers import AVAILABLE, INSUFFICIENT, OK, WORD
from meter.engine.behind import fields_of
from meter.engine.engine import Engine
from meter.engine.operations import DEDUCT, Asked
from meter.errors import MeterError, Unavailable
from meter.gateway.counts import GatewayCounts
from meter.gateway.unmetered import Served, UnmeteredFile
from meter.log import logger

USERS_MAX = 100_000
"""Balances that are remembered, some 150 bytes each; the one that was told longest ago goes first."""
CHARGED_AT_ONCE = 50
PAUSE_SECONDS = 0.5
"""Between two tries while Redis is away."""
SAVE_SECONDS = 1.0

_UNCOVERED = DEDUCT.field("uncovered")

_log = logger("meter.gateway")


class FailOpen:
    """Decides by what is remembered, and charges later. `running` belongs to the event loop that serves."""

    def __init__(
        self,
        settings: Settings,
        scale: AmountScale,
        engine: Engine,
        counts: GatewayCounts,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now = now
        self._folder = Path(settings.fail_journal)
        self._seconds = settings.fail_open_seconds
        self._most = None if settings.fail_open_credits is None else scale.units(settings.fail_open_credits)
        self._engine = engine
        self._counts = counts
        self._available: dict[str, int] = {}
        self._served: dict[str, int] = defaultdict(int)
        """Units that were served and are not charged yet, by user."""
        self._began_at: float | None = None
        self._named = secrets.token_hex(6)
        self._count = 0
        self._journal: UnmeteredFile | None = None
        self._more = asyncio.Event()

    def learn(self, user_id: str, available: int) -> None:
        """Redis answered, and told what a user has."""
        self._began_at = None
        known = self._available
        if known.pop(user_id, None) is None and len(known) >= USERS_MAX:
            del known[next(iter(known))]
        known[user_id] = available

    def forget(self, user_id: str) -> None:
        """Redis refused a user for another reason than want of credits: it is not served unmetered either."""
        self._available.pop(user_id, None)

    def left(self, user_id: str, units: int) -> int | None:
        """What the user would have left after so many units; None where it is not to be served."""
        available, now = self._available.get(user_id), self._now()
        if available is None:
            return None
        self._began_at = self._began_at or now
        served = self._served.get(user_id, 0) + units
        allowed = available if self._most is None else min(available, self._most)
        if served > allowed or now - self._began_at > self._seconds:
            return None
        return available - served

    def note(self, user_id: str, units: int, request_id: str) -> Served | None:
        """Notes a request that is about to be served; None where that cannot be, and it must not."""
        if self._journal is None:
            return None
        self._count += 1
        key = f"unmetered {self._named}-{self._count}"
        served = Served(key, user_id, units, request_id, time.time_ns() // 1_000_000)
        try:
            self._journal.add(served)
        except OSError as error:
            _log.error("a request cannot be served unmetered: it cannot be noted", error=str(error))
            return None
        self._served[user_id] += units
        self._counts.unmetered["served",] += 1
        self._more.set()
        return served

    def take_back(self, served: Served) -> None:
        """The gateway had gone: its request was not served."""
        if self._journal is not None:
            with contextlib.suppress(OSError):
                self._journal.take_back(served)
        self._forget(served)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Takes notes while it is open, and charges what was noted. Raises `ConfigError`."""
        journal = self._journal = UnmeteredFile.new(self._folder)
        tasks = [asyncio.create_task(self._charge_all(journal)), asyncio.create_task(self._save(journal))]
        try:
            yield
        finally:
            self._journal = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            journal.close()

    async def _charge_all(self, journal: UnmeteredFile) -> None:
        for left_behind in UnmeteredFile.left_behind(self._folder):
            try:
                await self._charge(left_behind)
            finally:
                left_behind.close()
        while True:
            await self._more.wait()
            self._more.clear()
            await self._charge(journal)

    async def _charge(self, journal: UnmeteredFile) -> None:
        while not journal.is_done:
            lines = journal.next(CHARGED_AT_ONCE)
            await asyncio.gather(*(self._charge_one(served) for served in lines))
            while True:
                try:
                    journal.charged()
                    break
                except OSError as error:  # forgotten, it would be charged again: not while this process lives
                    _log.error("what was charged cannot be noted", folder=str(self._folder), error=str(error))
                    await asyncio.sleep(PAUSE_SECONDS)

    async def _charge_one(self, served: Served) -> None:
        """Charges a request once, however often it is tried."""
        row = operations.members(
            "Served while Redis was away", {"served_at_ms": served.at_ms}, served.request_id or None
        )
        while True:
            try:
                one = operations.deduct(served.user_id, served.amount, "owed", Asked(served.key, row))
                fields = fields_of(await self._engine.run(served.user_id, one))
            except Unavailable:
                await asyncio.sleep(PAUSE_SECONDS)
            except MeterError:
                _log.exception("a request that was served unmetered was not charged", key=served.key)
                fields = []
                break
            else:
                break
        self._tell(served, fields)
        self._forget(served)
        if fields[WORD:] and fields[WORD] in (OK, INSUFFICIENT.word):
            self.learn(served.user_id, int(fields[AVAILABLE]))  # what was known is from before the charge
        else:
            self.forget(served.user_id)

    def _tell(self, served: Served, fields: list[str]) -> None:
        is_charged = fields[WORD:] and fields[WORD] == OK and fields[_UNCOVERED] == "0"
        self._counts.unmetered["charged" if is_charged else "unpaid",] += 1
        if not is_charged:
            _log.error(
                "a request that was served unmetered is not paid in full",
                user_id=served.user_id,
                units=served.amount,
                request_id=served.request_id,
                answer=" ".join(fields),
            )

    def _forget(self, served: Served) -> None:
        left = self._served.get(served.user_id, 0) - served.amount
        if left > 0:
            self._served[served.user_id] = left
        else:
            self._served.pop(served.user_id, None)

    async def _save(self, journal: UnmeteredFile) -> None:
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            if not journal.is_done:
                try:
                    await asyncio.to_thread(journal.save)
                except OSError as error:
                    _log.error("what was served unmetered is not on disk yet", error=str(error))
