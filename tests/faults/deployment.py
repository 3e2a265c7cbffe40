"""Real processes that can be killed, stopped and started again, and what proves that nothing was lost."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from redis import Redis
from redis.exceptions import RedisError
from rich.console import Console

from meter.dev.redis_server import EmbeddedServer
from meter.replay import ReplayOptions
from meter.replay.driver import replay
from meter.replay.report import ReplayReport
from meter.store.base import Store
from tests.e2e.processes import ROOT, MeterProcess, environment, free_port
from tests.ledger.ground import all_transactions, open_at, same_on_both_sides
from tests.servers import embedded_server

DEADLINE_SECONDS = 60.0
META = "meter:{p0}:meta"


async def until(condition: Callable[[], Any], what: str, *, seconds: float = DEADLINE_SECONDS) -> None:
    """Returns when the condition, awaited if need be, is true; fails when it is not in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)


@dataclass
class Figures:
    """What a run did and what was wrong at its end."""

    kills: int = 0
    operations: int = 0
    transactions: int = 0
    retries: int = 0
    lost: int = 0
    doubled: int = 0
    gaps: int = 0
    drifts: int = 0
    seconds: float = 0.0
    runs: int = 0
    conserved: bool = True
    unexpected: list[str] = field(default_factory=list)


class Nursery:
    """Bears and kills workers."""

    def __init__(self, folder: Path, env: dict[str, str], code: Path = ROOT) -> None:
        self._log = (folder / "workers.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.nursery"],
            cwd=code,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self.workers: list[int] = []

    def bear(self) -> int:
        """A new worker; its process id."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        self.workers.append(pid)
        return pid

    def kill(self, pid: int, how: int = signal.SIGKILL) -> None:
        """Signals a worker."""
        if how == signal.SIGKILL:
            self.workers.remove(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, how)

    @staticmethod
    def is_alive(pid: int) -> bool:
        """Whether a worker goes on."""
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"

    def close(self) -> None:
        """Ends them all."""
        self._process.kill()  # its children die with it
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        self._log.close()


class Deployment:
    """Redis, a sidecar, workers and a store, on the code of a folder."""

    def __init__(
        self, folder: Path, server: EmbeddedServer, store_url: str, *, code: Path = ROOT, **settings: object
    ) -> None:
        self.folder = folder
        self.server = server
        self.store_url = store_url
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.redis_port = int(server.url.rpartition(":")[2].split("/")[0])
        self.env = environment(**{"redis_url": server.url, "store_url": store_url, **settings}) | {
            "PYTHONPATH": str(code)
        }
        self.client: Any = Redis.from_url(server.url)
        self.sidecar: MeterProcess | None = None
        self.nursery = Nursery(folder, self.env, code)

    def serve(self) -> None:
        """Starts the sidecar."""
        self.sidecar = MeterProcess("serve", "--port", str(self.port), cwd=self.folder, env=self.env, name="sidecar")

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a `meter` command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "meter", *arguments],
            cwd=self.folder,
            env=self.env,
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )

    async def call(
        self, method: str, path: str, body: object = None, key: str = "", *, url: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """One call, of the sidecar at `url` or the first; status 0 when there was no answer."""
        headers = {"idempotency-key": key} if key else {}
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.request(method, (url or self.url) + path, json=body, headers=headers) as answer,
            ):
                return answer.status, json.loads(await answer.read() or b"{}")
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0, {}

    async def status(self, method: str, path: str, body: object = None) -> int:
        """The status of one call."""
        return (await self.call(method, path, body))[0]

    async def ready(self) -> None:
        """Waits until the sidecar serves."""
        await until(lambda: self._is_ready(200), "the sidecar is ready")

    async def _is_ready(self, status: int) -> bool:
        return await self.status("GET", "/readyz") == status

    async def drained(self, store: Store, *, seconds: float = DEADLINE_SECONDS) -> None:
        """Waits until the store has everything."""

        async def flushed() -> bool:
            watermark = await store.watermark(0)
            try:
                seq = int(self.client.hget(META, "seq") or 0)
            except RedisError:
                return False
            return seq == (watermark.seq if watermark else 0)

        await until(flushed, "the backlog is drained", seconds=seconds)

    def close(self) -> None:
        """Ends every process but the servers."""
        self.nursery.close()
        if self.sidecar is not None:
            self.sidecar.__exit__()
        self.client.close()


@asynccontextmanager
async def deployed(
    folder: Path, store_url: str, *, workers: int = 2, is_new: bool = True, **settings: object
) -> AsyncIterator[Deployment]:
    """A deployment at work on a Redis that keeps its data. One that is not new serves when it has been rebuilt."""
    with embedded_server(folder / "redis", persist=True) as server:
        found = Deployment(folder, server, store_url, code=ROOT, redis_timeout_ms=2_000, **settings)
        try:
            found.serve()
            for _ in range(workers):
                found.nursery.bear()
            if is_new:
                await found.ready()
            yield found
        finally:
            found.close()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    """The store, to look at."""
    store = await open_at(url)
    try:
        yield store
    finally:
        await store.close()


async def replayed(deployment: Deployment, trace: Path, **options: Any) -> ReplayReport:
    """Replays a trace against the sidecar, whose answers go to a journal."""
    given: dict[str, Any] = {"users": 20, "release_share": 0.1, "patience_seconds": 60.0, "concurrency": 32}
    wanted = ReplayOptions(
        trace=trace, url=deployment.url, journal=deployment.folder / "journal.jsonl", **{**given, **options}
    )
    return await replay(wanted, Console(file=io.StringIO()))


def write_trace(path: Path, rows: int, seed: int = 0) -> Path:
    """A trace like the production one."""
    lot = random.Random(seed)
    lines = [
        f"2023-11-16 18:15:{46 + n / rows:010.7f},{lot.randrange(1, 3_000)},{lot.randrange(500)}" for n in range(rows)
    ]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]))
    return path


async def prove(deployment: Deployment, store: Store, figures: Figures | None = None) -> Figures:
    """Everything acknowledged is in the store once, no seq is missing, and the store is what Redis is."""
    figures = figures or Figures()
    rows = await all_transactions(store)
    figures.transactions = len(rows)
    seqs = [row.seq for row in rows]
    figures.gaps = (max(seqs) if seqs else 0) - len(set(seqs))
    figures.doubled = len(seqs) - len(set(seqs))
    booked, granted = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for row in rows:
        detail = row.detail if isinstance(row.detail, dict) else {}
        if row.kind == "grant":
            granted[row.user_id, str(detail["grant_id"])] += 1
            booked["grant", row.user_id] = 1
        else:
            booked[row.kind, str(row.reservation_id)] += 1
    once = [times for (kind, _), times in booked.items() if kind in ("reserve", "commit", "release")]
    figures.doubled += sum(times - 1 for times in [*once, *granted.values()])
    journal = deployment.folder / "journal.jsonl"
    if journal.exists():
        for line in journal.read_bytes().splitlines():
            done = json.loads(line).get("done")
            if done is None:
                continue
            figures.operations += 1
            if done["status"] in (200, 201) and not booked[done["verb"], done["subject"]]:
                figures.lost += 1
                figures.unexpected.append(f"{done['verb']} {done['subject']}")
    await same_on_both_sides(deployment.client, store)
    return figures


async def chaos(deployment: Deployment, trace: Path, seconds: float, *, seed: int = 0, **options: Any) -> Figures:
    """Replays for so long while workers are killed and born again."""
    lot, figures, started = random.Random(seed), Figures(), time.monotonic()
    over = asyncio.Event()

    async def murder() -> None:
        while not over.is_set():
            await asyncio.sleep(lot.uniform(0.2, 0.5))
            deployment.nursery.kill(lot.choice(deployment.nursery.workers))
            deployment.nursery.bear()
            figures.kills += 1

    murderer = asyncio.create_task(murder())
    try:
        while figures.runs == 0 or time.monotonic() - started < seconds:
            report = await replayed(deployment, trace, seed=seed + figures.runs, **options)
            figures.runs += 1
            figures.conserved = figures.conserved and report.conserved
            figures.retries += 0 if report.timing is None else report.timing.retries
    finally:
        over.set()
        await murderer
    async with opened(deployment.store_url) as store:
        await deployment.drained(store, seconds=max(60.0, seconds))
        await prove(deployment, store, figures)
    reconciled = deployment.command("reconcile", "--json")
    figures.drifts = sum(len(report["drifts"]) for report in json.loads(reconciled.stdout))
    figures.seconds = time.monotonic() - started
    return figures


def sound(figures: Figures) -> bool:
    """Whether nothing was wrong."""
    return figures.conserved and (figures.lost, figures.doubled, figures.gaps, figures.drifts) == (0, 0, 0, 0)
