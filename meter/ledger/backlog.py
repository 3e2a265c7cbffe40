"""How far the store is, told to the scripts: what it has is trimmed, and what it has not yet is the backlog."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress

from meter.config import Settings
from meter.engine import upkeep
from meter.engine.engine import Engine
from meter.engine.redis import RedisGateway
from meter.engine.upkeep import FLUSHED
from meter.errors import RedisUnavailable
from meter.keys import PartitionKeys
from meter.log import logger
from meter.store.rows import WatermarkRow

NOTE_INTERVAL_SECONDS = 0.5
"""A note is a script call, and what it tells is only how much waits."""
TRIM_MAX = 100_000

_log = logger("meter.flusher")


class Backlog:
    """What of one partition waits for the store."""

    def __init__(self, redis: RedisGateway, engine: Engine, keys: PartitionKeys, settings: Settings) -> None:
        self._redis = redis
        self._engine = engine
        self._keys = keys
        self._settings = settings
        self._marks: deque[tuple[float, int]] = deque()
        self._noted_at = 0.0
        self._noted_seq = 0
        self._marked_seq = 0
        self._warned = 0

    def start_at(self, seq: int) -> None:
        """Forgets what was noted above the store's own watermark: a store can lose its last."""
        while self._marks and self._marks[-1][1] > seq:
            self._marks.pop()
        if self._marked_seq > seq:
            self._marked_seq = 0

    def found(self, seq: int) -> None:
        """Takes what Redis itself says it was told: one that lost its last second is told again."""
        self._noted_seq = seq

    def is_told(self, seq: int) -> bool:
        """Whether Redis was told that the store is there."""
        return self._noted_seq == seq

    async def note(self, watermark: WatermarkRow | None) -> None:
        """Tells the scripts how far the store is, and trims what it has had for the retention. Raises
        `PartitionRefused`.
        """
        now = time.monotonic()
        if watermark is None or now - self._noted_at < NOTE_INTERVAL_SECONDS:
            return
        if watermark.seq != self._marked_seq:
            self._marked_seq = watermark.seq
            self._marks.append((now, watermark.seq))
        ripe = now - self._settings.outbox_retention_seconds
        if watermark.seq == self._noted_seq and not (self._marks and self._marks[0][0] <= ripe):
            return  # each note grows the append-only file
        self._noted_at, self._noted_seq = now, watermark.seq
        trim_to = 0
        while self._marks and self._marks[0][0] <= ripe:
            trim_to = self._marks.popleft()[1]
        note = upkeep.flushed(watermark.seq, trim_to, TRIM_MAX)
        (line,) = await self._engine.run_many(self._keys.number, (note,))
        self._warn(FLUSHED.read(line).units("backlog"))

    async def warn(self, watermark: WatermarkRow | None) -> None:
        """While the store is away nothing else tells how near the limit is."""
        with suppress(RedisUnavailable):
            state = await self._redis.partition_state(self._keys.meta)
            if state is not None:
                self._warn(state.seq - max(state.flushed, watermark.seq if watermark else 0))

    def _warn(self, backlog: int) -> None:
        """Tells when the backlog crosses half of its limit, and the limit; and when it is back below."""
        limit = self._settings.outbox_max
        level = (2 * backlog >= limit) + (backlog >= limit) if limit else 0
        if level > self._warned:
            what = "reservations and deductions are refused" if level == 2 else "at that limit spending is refused"
            _log.warning(
                f"the backlog grows; {what}", partition=self._keys.number, transactions=backlog, outbox_max=limit
            )
        elif level < self._warned:
            _log.warning("the backlog is down", partition=self._keys.number, transactions=backlog, outbox_max=limit)
        self._warned = level
