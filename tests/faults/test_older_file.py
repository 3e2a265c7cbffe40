"""X3: an older append-only file comes back under live sidecars that are at work, by real processes.

The first batch of a process that was told of more finds it, nobody is served until it is repaired, and what the store
had is there afterwards, once.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from meter.dev.redis_server import EmbeddedServer
from meter.store.base import Store
from tests.e2e.processes import MeterProcess, free_port
from tests.faults.deployment import META, Deployment, deployed, opened, until
from tests.ledger.ground import all_transactions, same_on_both_sides
from tests.servers import embedded_server

pytestmark = pytest.mark.slow

GRANTED = 1_000_000


class Spender:
    """Spends one credit at a time at one sidecar, as long as it lives, and notes what was acknowledged."""

    def __init__(self, deployment: Deployment, url: str) -> None:
        self._deployment, self._url = deployment, url
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self.goes_on = True

    async def run(self) -> None:
        while self.goes_on:
            body = {"user_id": "u", "amount": 1}
            status, answer = await self._deployment.call("POST", "/credits/deduct", body, url=self._url)
            if status == 200:
                self.acknowledged.append(str(answer["transaction_id"]))
            elif status:
                self.refused.append(str(answer.get("detail")))


class Town:
    """A deployment with three sidecars, and an append-only file that can be put back."""

    def __init__(self, deployment: Deployment, folder: Path, stack: AsyncExitStack) -> None:
        self.deployment, self._folder, self._stack = deployment, folder, stack
        self.spenders: list[Spender] = []
        self.sidecars: dict[str, MeterProcess] = {}
        self._files, self._kept = folder / "redis" / "appendonlydir", folder / "kept"
        self._server: EmbeddedServer = deployment.server

    def serve(self, port: int) -> str:
        """A sidecar more; its URL."""
        name, deployment = f"sidecar-{port}", self.deployment
        process = MeterProcess("serve", "--port", str(port), cwd=self._folder, env=deployment.env, name=name)
        url = f"http://127.0.0.1:{port}"
        self.sidecars[url] = self._stack.enter_context(process)
        return url

    async def ready(self, url: str, status: int = 200) -> None:
        async def is_so() -> bool:
            return (await self.deployment.call("GET", "/readyz", url=url))[0] == status

        await until(is_so, f"{url} is {status}")

    async def spends(self, seconds: float) -> None:
        """Some more is acknowledged at each sidecar."""
        before = {spender: len(spender.acknowledged) for spender in self.spenders}
        await asyncio.sleep(seconds)
        await until(lambda: all(len(one.acknowledged) > n + 5 for one, n in before.items()), "credits are spent")

    async def caught_up(self, store: Store) -> None:
        """The store has what there is now."""
        seq = int(self.deployment.client.hget(META, "seq"))

        async def is_so() -> bool:
            watermark = await store.watermark(0)
            return watermark is not None and watermark.seq >= seq

        await until(is_so, f"the store has seq {seq}")

    def keep(self) -> int:
        """Copies the file; the seq that it has at least."""
        seq = int(self.deployment.client.hget(META, "seq"))
        shutil.copytree(self._files, self._kept)
        return seq

    def kill_redis(self) -> None:
        os.kill(self._server.pid, signal.SIGKILL)
        self._server.stop()

    def put_back(self) -> None:
        """Redis comes back at the same place with the file that was kept."""
        shutil.rmtree(self._files)
        shutil.copytree(self._kept, self._files)
        self._server = embedded_server(self._folder / "redis", persist=True, port=self.deployment.redis_port)
        self._stack.enter_context(self._server)


@asynccontextmanager
async def town(folder: Path, store_url: str, *, workers: int, auto: bool) -> AsyncIterator[Town]:
    async with (
        deployed(folder, store_url, workers=workers, auto_repair=int(auto)) as deployment,
        AsyncExitStack() as stack,
    ):
        found = Town(deployment, folder, stack)
        urls = [deployment.url, found.serve(free_port()), found.serve(free_port())]
        for url in urls:
            await found.ready(url)
        assert await deployment.status("POST", "/credits/add", {"user_id": "u", "amount": GRANTED}) == 200
        found.spenders = [Spender(deployment, url) for url in urls]
        tasks = [asyncio.create_task(spender.run()) for spender in found.spenders]
        try:
            yield found
        finally:
            for spender in found.spenders:
                spender.goes_on = False
            await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    "restarts",
    [False, pytest.param(True, marks=pytest.mark.long)],
    ids=["all live on", "one sidecar starts anew meanwhile"],
)
@pytest.mark.parametrize("workers", [2, pytest.param(0, marks=pytest.mark.long)], ids=["flushed", "the worker is down"])
@pytest.mark.parametrize("auto", [True, False], ids=["METER_AUTO_REPAIR", "meter rebuild"])
async def test_x3_an_older_file_is_found_and_repaired(
    tmp_path: Path, *, auto: bool, workers: int, restarts: bool
) -> None:
    url = f"sqlite:///{tmp_path}/meter.db"
    async with town(tmp_path, url, workers=2, auto=auto) as found, opened(url) as store:
        deployment = found.deployment
        await found.spends(0.5)
        await found.caught_up(store)
        for pid in list(deployment.nursery.workers)[workers:]:
            deployment.nursery.kill(pid)
        kept = found.keep()
        await found.spends(1.0)
        found.kill_redis()
        watermark = await store.watermark(0)
        assert watermark is not None
        before = [transaction for one in found.spenders for transaction in one.acknowledged]
        assert max(seq_of(one) for one in before) > kept
        if restarts:
            gone = next(iter(found.sidecars))
            found.sidecars[gone].kill()
        found.put_back()
        if restarts:
            found.serve(int(gone.rpartition(":")[2]))
        if auto:
            if not workers:
                deployment.nursery.bear()
        else:
            for spender in found.spenders:
                await found.ready(spender._url, 503)
            assert deployment.client.hget(META, "state") == b"lost"
            refused = [text for one in found.spenders for text in one.refused if "though" in text or "lost" in text]
            assert refused, "nobody was told why"
            done = deployment.command("rebuild", "--json")
            assert done.returncode == 0, done.stderr
            if not workers:
                deployment.nursery.bear()
        for spender in found.spenders:
            await found.ready(spender._url)
        await found.spends(0.5)
        for spender in found.spenders:
            spender.goes_on = False
        await asyncio.sleep(0.5)
        await deployment.drained(store)
        rows = await all_transactions(store)
        booked = {row.transaction_id for row in rows}
        missing = [one for spender in found.spenders for one in spender.acknowledged if one not in booked]
        assert set(missing) <= set(before), "what was acknowledged after the repair is lost"
        assert all(seq_of(one) > watermark.seq for one in missing), "what the store had is lost"
        assert len(booked) == len(rows)
        spent = sum(1 for row in rows if row.kind == "deduct")
        (account,) = (await store.accounts(["u"])).values()
        assert (account.spent, account.available) == (spent * 10**6, (GRANTED - spent) * 10**6)
        await same_on_both_sides(deployment.client, store)
    print(f"\n{len(before)} acknowledged before, {len(missing)} of them never flushed and gone")  # noqa: T201


def seq_of(transaction_id: str) -> int:
    """Where a transaction stood in the history that made it."""
    return int(transaction_id.split("-")[1])
