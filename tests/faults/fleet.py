"""Two sidecars and a worker on a Redis of several servers, users who spend, and what proves that nothing is lost."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import orjson

from meter.store.base import Store
from meter.store.connect import open_store
from meter.store.rows import EventRow
from tests.e2e.processes import MeterProcess, environment, free_port, run_meter
from tests.faults.deployment import until
from tests.ledger.ground import all_transactions

GRANTED = 1_000_000
USERS = 24


@dataclass
class Spender:
    """Spends one credit of one user at a time, again with the same key until it knows, and notes what it was told."""

    user_id: str
    url: str
    acknowledged: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    tries: int = 0
    slowest_seconds: float = 0.0

    async def run(self, session: aiohttp.ClientSession, over: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        while not over.is_set():
            key, began = uuid4().hex, loop.time()
            while not over.is_set():
                self.tries += 1
                status, answer = await _call(session, f"{self.url}/credits/deduct", self.user_id, key)
                if status == 200:
                    self.acknowledged.append(str(answer["transaction_id"]))
                    break
                self.refused.append(str(answer.get("detail", status)))
                await asyncio.sleep(0.02)
            self.slowest_seconds = max(self.slowest_seconds, loop.time() - began)


async def _call(session: aiohttp.ClientSession, url: str, user_id: str, key: str) -> tuple[int, dict[str, Any]]:
    body = {"user_id": user_id, "amount": 1}
    try:
        async with session.post(url, json=body, headers={"idempotency-key": key}) as answer:
            return answer.status, orjson.loads(await answer.read() or b"{}")
    except (aiohttp.ClientError, TimeoutError, OSError):
        return 0, {}


@dataclass(frozen=True)
class Proof:
    """What was found at the end, by partition: transactions that were acknowledged and are not in the store."""

    missing: dict[int, list[str]]
    acknowledged: int
    transactions: int
    events: list[EventRow]


class Fleet:
    """The processes. `partitions` are those of the settings."""

    def __init__(self, folder: Path, redis_url: str, store_url: str, partitions: int, **settings: object) -> None:
        self.folder, self.store_url, self.partitions = folder, store_url, partitions
        given = {"redis_timeout_ms": 1000, "partitions": partitions, "auto_repair": 1, **settings}
        self.env = environment(redis_url=redis_url, store_url=store_url, **given)
        self.urls: list[str] = []
        self.spenders: list[Spender] = []
        self._over = asyncio.Event()
        self._spending: list[asyncio.Task[None]] = []

    async def start(self, stack: AsyncExitStack, sidecars: int = 2) -> None:
        """Sidecars that serve, a worker, and users with credits."""
        for number in range(sidecars):
            port = free_port()
            command = ("serve", "--port", str(port))
            stack.enter_context(MeterProcess(*command, cwd=self.folder, env=self.env, name=f"sidecar-{number}"))
            self.urls.append(f"http://127.0.0.1:{port}")
        stack.enter_context(MeterProcess("worker", cwd=self.folder, env=self.env, name="worker"))
        self._session = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5), connector=aiohttp.TCPConnector(limit=0))
        )
        for url in self.urls:
            await self.ready(url)
        for number in range(USERS):
            body = {"user_id": f"u{number}", "amount": GRANTED}
            async with self._session.post(f"{self.urls[0]}/credits/add", json=body) as answer:
                assert answer.status == 200, await answer.text()

    async def ready(self, url: str) -> None:
        async def is_so() -> bool:
            try:
                async with self._session.get(f"{url}/readyz") as answer:
                    return answer.status == 200
            except (aiohttp.ClientError, TimeoutError, OSError):
                return False

        await until(is_so, f"{url} is ready")

    def spend(self) -> None:
        """Each user begins to spend at one of the sidecars."""
        self.spenders = [Spender(f"u{n}", self.urls[n % len(self.urls)]) for n in range(USERS)]
        self.resume()

    def resume(self) -> None:
        """They go on."""
        self._over.clear()
        self._spending = [asyncio.create_task(one.run(self._session, self._over)) for one in self.spenders]

    async def goes_on(self, seconds: float = 0.3) -> None:
        """Every user is acknowledged something more."""
        before = {one.user_id: len(one.acknowledged) for one in self.spenders}
        await asyncio.sleep(seconds)
        await until(lambda: all(len(one.acknowledged) > before[one.user_id] + 2 for one in self.spenders), "all spend")

    @property
    def told(self) -> set[str]:
        """Every transaction that somebody was told of."""
        return {one for spender in self.spenders for one in spender.acknowledged}

    async def stop_spending(self) -> None:
        self._over.set()
        await asyncio.gather(*self._spending)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Store]:
        store = open_store(self.store_url)
        await store.open({"decimal_places": "6", "partitions": str(self.partitions)})
        try:
            yield store
        finally:
            await store.close()

    async def watermarks(self) -> dict[int, int]:
        """How far the store has each partition, by seq."""
        async with self._opened() as store:
            found = {number: await store.watermark(number) for number in range(self.partitions)}
        return {number: row.seq if row else 0 for number, row in found.items()}

    async def prove(self) -> Proof:
        """The store is what Redis is, account by account; what of all that was acknowledged is not in it."""
        await until(self.reconciled, "0 drifts", seconds=90)
        missing: dict[int, list[str]] = defaultdict(list)
        count = 0
        async with self._opened() as store:
            booked: set[str] = set()
            for number in range(self.partitions):
                rows = await all_transactions(store, number)
                assert [row.seq for row in rows] == sorted({row.seq for row in rows}), "a seq twice"
                assert len({row.transaction_id for row in rows}) == len(rows)
                count += len(rows)
                booked |= {row.transaction_id for row in rows}
            for one in self.told - booked:
                missing[int(one.split("-")[0])].append(one)
            await self._conserved(store)
            events = list(await store.events(limit=500))
        return Proof(dict(missing), len(self.told), count, events)

    async def _conserved(self, store: Store) -> None:
        for spender in self.spenders:
            row = (await store.accounts([spender.user_id]))[spender.user_id]
            assert row.available + row.spent == GRANTED * 10**6, spender.user_id

    async def reconciled(self) -> bool:
        run = await asyncio.to_thread(run_meter, "reconcile", "--json", cwd=self.folder, env=self.env)
        if run.returncode not in (0, 1) or not run.stdout:
            return False
        reports = json.loads(run.stdout)
        return len(reports) == self.partitions and not any(report["drifts"] for report in reports)


@asynccontextmanager
async def fleet(folder: Path, redis_url: str, *, partitions: int, **settings: object) -> AsyncIterator[Fleet]:
    """A fleet at work."""
    found = Fleet(folder, redis_url, f"sqlite:///{folder}/meter.db", partitions, **settings)
    async with AsyncExitStack() as stack:
        await found.start(stack)
        try:
            yield found
        finally:
            await found.stop_spending()
