"""The Redis under the benchmark, seen from beside: accounts put in place, its counters read, its outbox emptied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self, cast

from redis import Redis

from meter.config import Settings, load_settings
from meter.engine import operations
from meter.engine.connect import connect
from meter.engine.engine import Engine
from meter.engine.operations import Operation

CHUNK = 500
PLENTY = 10**12
"""Units granted to each user: more than any round spends."""
_SCRIPT_STATS = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_fcall")


class Ground:
    """One Redis, with an engine on it. Use it inside a running event loop."""

    def __init__(self, redis_url: str) -> None:
        self.settings: Settings = load_settings(
            redis_url=redis_url, store_url="none", outbox_max=0, redis_timeout_ms=30_000, batch_max=CHUNK, partitions=1
        )
        self.client = Redis.from_url(redis_url)
        self.gateway = connect(redis_url, timeout_seconds=30.0, connections_max=8)
        self.engine = Engine(self.gateway, self.settings, ledger_of=_whoever)
        self.keys = self.engine.partitions[0]

    async def __aenter__(self) -> Self:
        await self.engine.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.engine.close()
        await self.gateway.close()
        self.client.close()

    async def run(self, operations: Iterable[Operation]) -> None:
        """Runs operations in chunks. Raises `RuntimeError` when one is refused."""
        chunk: list[Operation] = []
        for one in operations:
            chunk.append(one)
            if len(chunk) == CHUNK:
                await self._chunk(chunk)
                chunk = []
        if chunk:
            await self._chunk(chunk)

    async def give(self, users: Iterable[str]) -> None:
        """One grant of plenty to each user."""
        await self.run(operations.grant(user, "bench", PLENTY, chosen=False) for user in users)

    def forget_outbox(self) -> None:
        """What a worker would have flushed and trimmed meanwhile."""
        self.client.xtrim(self.keys.outbox, maxlen=1)

    def script_microseconds(self) -> float:
        """Time that Redis has spent in scripts so far."""
        stats = cast("dict[str, dict[str, float]]", self.client.info("commandstats"))
        return sum(float(stats[name]["usec"]) for name in _SCRIPT_STATS if name in stats)

    def used_bytes(self) -> int:
        """Memory of the data and what belongs to it."""
        return int(cast("dict[str, int]", self.client.info("memory"))["used_memory"])

    def outbox_bytes(self) -> int:
        """Memory of the outbox."""
        return int(cast("int", self.client.memory_usage(self.keys.outbox, samples=0) or 0))

    def append_only_bytes(self) -> int:
        """Length of the append-only file; compare only after `never_rewrite`."""
        return int(cast("dict[str, int]", self.client.info("persistence"))["aof_current_size"])

    def never_rewrite(self) -> None:
        """Redis lets its append-only file grow, so that its length tells what was written."""
        self.client.config_set("auto-aof-rewrite-percentage", 0)

    @property
    def version(self) -> str:
        """What the server says it is."""
        about = cast("dict[str, str]", self.client.info("server"))
        return f"{about.get('server_name', 'redis')} {about.get('valkey_version') or about['redis_version']}"

    async def _chunk(self, chunk: Sequence[Operation]) -> None:
        lines = await self.engine.run_many(0, chunk)
        refused = next((line for line in lines if " ok" not in line[:5]), None)
        if refused is not None:
            raise RuntimeError(f"{chunk[0][0]}: {refused}")


async def _whoever() -> str:
    """The store is the worker's: here nobody needs to know whose ledger this is."""
    return ""
