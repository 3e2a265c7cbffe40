"""What the faults of table.py happen to: two sidecars, two workers, clients, Redis and a store behind failing links."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError

from meter.dev.redis_server import EmbeddedServer
from tests.e2e.processes import ROOT, MeterProcess, free_port
from tests.faults.checker.evidence import Loss
from tests.faults.checker.redis_side import place_of
from tests.faults.checker.store_side import Database, watermark_of
from tests.faults.deployment import Deployment, until
from tests.faults.plain_http import PlainHttp
from tests.faults.workload import PLAN
from tests.servers import embedded_server
from tests.store.servers import Postgres, Proxy

NOTICED_SECONDS = 10.0
PROBE = "probe"
FOREIGN = {"other:{p0}:meta": "of another deployment", "meterx:{p0}:accounts": "of one with a similar name"}
"""Keys of others in the same Redis."""


def now_ms() -> int:
    """The time, in milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass
class Plan:
    """What a town is made of."""

    folder: Path
    seed: int = 0
    clients: int = 2
    concurrency: int = 12
    pause_ms: int = 40
    """Of a caller after an operation: two cores are then about half busy."""
    users: int = 100
    code: Path = ROOT
    """Where the code of the processes is: a patched copy, for negative controls."""
    settings: dict[str, object] = field(default_factory=dict)
    patience_seconds: float = 90.0
    """How long a recovery may take."""
    disk: Path | None = None
    """A small disk of its own, on which Redis and SQLite are; None: there is none, and it cannot fill up."""


class Town:
    """Processes by name, and what can be done to them. `opened_town` makes one."""

    def __init__(self, plan: Plan, postgres: Postgres | None, stack: AsyncExitStack) -> None:
        self.plan, self.postgres, self._stack = plan, postgres, stack
        self.disk = plan.disk
        self.data = plan.disk or plan.folder
        self.losses: list[Loss] = []
        self._doubt: tuple[int, Loss] | None = None
        self.http = PlainHttp(timeout_seconds=5.0)
        self.sidecars: dict[str, MeterProcess] = {}
        self.clients: dict[int, subprocess.Popen[bytes]] = {}
        self._generation = itertools.count(time.time_ns() // 1_000_000)
        self._probes = itertools.count(1)
        self._run = secrets.token_hex(3)
        self.database_url = f"sqlite:///{self.data}/meter.db"
        self.store_link: Proxy | None = None

    # Redis

    async def start(self, database: str) -> None:
        """Starts everything but the clients."""
        self.server = embedded_server(self.data / "redis", persist=True)
        self.server.start()
        self.redis_port = int(self.server.url.rpartition(":")[2].split("/")[0])
        self._stack.callback(self._stop_redis)
        self.link = await self._stack.enter_async_context(Proxy(("127.0.0.1", self.redis_port)))
        store_url = self.database_url
        if self.postgres is not None:
            self.store_link = await self._stack.enter_async_context(Proxy(self.postgres.address))
            self.database_url = self.postgres.url(database)
            store_url = self.postgres.url(database, port=self.store_link.port)
        settings = {
            "redis_url": f"redis://127.0.0.1:{self.link.port}/0",
            "auto_repair": 1,
            "redis_timeout_ms": 1_500,  # a busy machine is no fault
            "sweep_interval_seconds": 1,
            "outbox_retention_seconds": 20,
            **self.plan.settings,
        }
        self.deployment = Deployment(self.plan.folder, self.server, store_url, code=self.plan.code, **settings)
        self._stack.callback(self.deployment.close)
        self._stack.callback(self._end_processes)
        self._plant()
        for _ in range(2):
            self.serve(free_port())
        while len(self.workers) < 2:
            self.deployment.nursery.bear()
        await self.recovered()
        plan = {"name": "Daily", "plan_id": PLAN, "credit_limit": 25, "price": "1", "billing_period": "daily"}
        await until(lambda: self._is_made(plan), "the plan is made")

    def _plant(self) -> None:
        """What belongs to others; a Redis that was emptied has lost theirs, too."""
        for key, text in FOREIGN.items():
            self.client.set(key, text)

    async def _is_made(self, plan: dict[str, Any]) -> bool:
        return (await self.http.call(self.urls[0], "POST", "/credits/plans", plan))[0] in (200, 201, 409)

    @property
    def client(self) -> Any:
        """A client of Redis itself, past the link."""
        return self.deployment.client

    @property
    def urls(self) -> list[str]:
        return list(self.sidecars)

    @property
    def workers(self) -> list[int]:
        return self.deployment.nursery.workers

    @property
    def database(self) -> Database:
        return Database(self.database_url)

    def kill_redis(self) -> None:
        """SIGKILL, and it is gone."""
        with suppress(ProcessLookupError):
            os.kill(self.server.pid, signal.SIGKILL)
        self.server.stop()

    async def kill_redis_between_fsyncs(self, fault: str) -> None:
        """SIGKILL with `appendfsync everysec`: while an fsync lags, Redis holds what it acknowledged back for up to two
        seconds, and that dies with it. Whether anything did is known when it is back: `settle_doubt`.
        """
        at_ms, epoch = now_ms(), place_of(self.client)[0]
        _, stored_seq = await asyncio.to_thread(watermark_of, self.database)
        self.kill_redis()
        self._doubt = epoch, Loss(fault, at_ms, at_ms, stored_seq, detected=True, loses=True)

    def settle_doubt(self) -> None:
        """After the recovery: what was noticed and rebuilt was a loss; else nothing may be gone."""
        if self._doubt is not None:
            epoch, loss = self._doubt
            if place_of(self.client)[0] > epoch:
                self.losses.append(loss._replace(over_ms=now_ms()))
            self._doubt = None

    def _stop_redis(self) -> None:
        self.server.stop()

    def start_redis(self, *, binary: Path | None = None) -> None:
        """Starts it on what its folder has, where it was."""
        folder = self.data / "redis"
        if binary is None:
            self.server = embedded_server(folder, persist=True, port=self.redis_port)
        else:
            self.server = EmbeddedServer(data_dir=folder, persist=True, port=self.redis_port, binary=binary)
        self.server.start()

    # Processes

    def serve(self, port: int, **env: str) -> str:
        """A sidecar; its URL."""
        url, deployment = f"http://127.0.0.1:{port}", self.deployment
        arguments = ("serve", "--port", str(port))
        self.sidecars[url] = MeterProcess(
            *arguments, cwd=self.plan.folder, env=deployment.env | env, name=f"sidecar-{port}"
        )
        return url

    def restart_sidecar(self, url: str, **env: str) -> None:
        """SIGKILL, and another one in its place."""
        self.sidecars[url].kill()
        self.serve(int(url.rpartition(":")[2]), **env)

    @contextmanager
    def stopped(self, *pids: int) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end."""
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def bear(self) -> None:
        """As many workers as there should be."""
        nursery = self.deployment.nursery
        for pid in [pid for pid in self.workers if not nursery.is_alive(pid)]:
            self.workers.remove(pid)
        while len(self.workers) < 2:
            nursery.bear()

    def kill_workers(self) -> None:
        """All of them."""
        for pid in list(self.workers):
            self.deployment.nursery.kill(pid)

    def begin_client(self, number: int, **options: int) -> None:
        """A client, with a history of its own."""
        name = f"{number}.{next(self._generation)}"
        plan = self.plan
        given = {"users": plan.users, "concurrency": plan.concurrency, "pause-ms": plan.pause_ms, **options}
        more = [part for option, value in given.items() for part in (f"--{option}", str(value))]
        command = [sys.executable, "-m", "tests.faults.workload", "--name", name, "--seed", str(plan.seed)]
        with (plan.folder / "clients.log").open("ab") as log:
            self.clients[number] = subprocess.Popen(
                [*command, "--journal", str(self.history / f"{name}.ndjson"), "--sidecars", ",".join(self.urls), *more],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )

    def begin_clients(self) -> None:
        """All of them."""
        for number in range(self.plan.clients):
            self.begin_client(number)

    async def end_clients(self) -> None:
        """They begin nothing more, and end when they know what became of what they began."""
        clients, self.clients = list(self.clients.values()), {}
        for client in clients:
            client.send_signal(signal.SIGTERM)
        try:
            await until(lambda: all(client.poll() is not None for client in clients), "the clients end")
        finally:
            for client in clients:
                client.kill()
                client.wait()

    @property
    def history(self) -> Path:
        return self.plan.folder / "history"

    def _end_processes(self) -> None:
        for client in self.clients.values():
            client.kill()
            client.wait()
        for process in self.sidecars.values():
            process.__exit__()
        self.http.close()

    # What is waited for

    async def recovered(self) -> None:
        """Both sidecars serve, and the store has what they did: a probe was spent at each."""
        seqs = []
        for url in self.urls:
            key, answer = f"{PROBE}-{self._run}-{next(self._probes)}", dict[str, Any]()

            async def is_spent(url: str = url, key: str = key, answer: dict[str, Any] = answer) -> bool:
                body = {"user_id": PROBE, "amount": 1}
                status, text = await self.http.call(url, "POST", "/credits/deduct", body, key)
                if status == 402:
                    await self.http.call(url, "POST", "/credits/add", {"user_id": PROBE, "amount": 1_000}, f"add-{key}")
                answer.update(json.loads(text) if status == 200 else {})
                return status == 200

            await until(is_spent, f"{url} serves", seconds=self.plan.patience_seconds)
            seqs.append(int(answer["transaction_id"].split("-")[1]))
        await self.stored(max(seqs))

    async def works(self, transactions: int) -> None:
        """So many more are made."""
        seq = place_of(self.client)[1] + transactions
        await until(lambda: place_of(self.client)[1] >= seq, f"{transactions} more are made")

    async def stored(self, seq: int) -> None:
        """The store has so much."""

        async def is_so() -> bool:
            try:
                return (await asyncio.to_thread(watermark_of, self.database))[1] >= seq
            except Exception:
                return False

        await until(is_so, f"the store has seq {seq}", seconds=self.plan.patience_seconds)

    async def drained(self) -> None:
        """The store has everything; nothing falls due meanwhile for long enough to look."""

        async def is_so() -> bool:
            return await asyncio.to_thread(watermark_of, self.database) == place_of(self.client)[:2]

        await until(is_so, "the backlog is drained", seconds=self.plan.patience_seconds)

    async def loss(self, fault: str, lose: Callable[[], Awaitable[object]], *, loses: bool = True) -> None:
        """Makes Redis lose history, or orders a rebuild, and waits until it was noticed and mended."""
        at_ms = now_ms()
        epoch, stored_seq = await asyncio.to_thread(watermark_of, self.database)
        await lose()
        detected = True
        try:
            await until(lambda: self._is_noticed(epoch), "the loss is noticed", seconds=NOTICED_SECONDS)
        except AssertionError:
            detected = False
        self._plant()
        self.bear()
        await self.recovered()
        self.losses.append(Loss(fault, at_ms, now_ms(), stored_seq, detected, loses))

    def _is_noticed(self, epoch: int) -> bool:
        try:
            state, found = self.client.hmget("meter:{p0}:meta", "state", "epoch")
        except RedisError:
            return False
        return state in (b"lost", b"rebuilding") or int(found or 0) > epoch

    def meter(self, *arguments: str) -> subprocess.Popen[bytes]:
        """A `meter` command that goes on."""
        env = self.deployment.env
        with (self.plan.folder / "commands.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "meter", *arguments], cwd=self.plan.folder, env=env, stdout=log, stderr=log
            )


def mounted_disk(folder: Path, mebibytes: int) -> Path | None:
    """A small disk of its own; None where nobody may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder.is_mount():
        return folder
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        return None
    return folder


def unmount(disk: Path | None) -> None:
    """Takes it away."""
    if disk is not None:
        subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=False)


@asynccontextmanager
async def opened_town(plan: Plan, *, postgres: Postgres | None = None, database: str = "") -> AsyncIterator[Town]:
    """A town at work, without clients."""
    async with AsyncExitStack() as stack:
        town = Town(plan, postgres, stack)
        await town.start(database)
        yield town
