"""`meter migrate`: the schema of this version, an exit code, and nothing else."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, environment, run_meter
from tests.store.servers import Postgres, database_name, running

LAST = sorted((ROOT / "meter" / "store" / "sql" / "migrations" / "versions").glob("v*.py"))[-1].name[1:5]
NOBODY = "redis://127.0.0.1:9"
"""It needs no Redis."""


def migrated(tmp_path: Path, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = environment(redis_url=NOBODY, store_url=url)
    return run_meter("migrate", *arguments, cwd=tmp_path, env=env)


def test_it_makes_the_schema_and_may_be_repeated(tmp_path: Path) -> None:
    for _ in range(2):
        done = migrated(tmp_path, "sqlite:///meter.db", "--json")
        assert done.returncode == 0 and json.loads(done.stdout)["store"] == "sqlite:///meter.db", done
    with sqlite3.connect(tmp_path / "meter.db") as database:
        assert database.execute("SELECT version_num FROM meter_schema").fetchall() == [(LAST,)]


def test_a_store_that_is_away_is_code_3_and_none_is_code_2(tmp_path: Path) -> None:
    away = migrated(tmp_path, "postgresql://meter@127.0.0.1:9/meter", "--wait", "0")
    assert away.returncode == 3 and "Traceback" not in away.stderr
    none = migrated(tmp_path, "none")
    assert none.returncode == 2 and "METER_STORE_URL=none" in none.stderr


@pytest.mark.slow
@pytest.mark.postgres
async def test_five_at_once_make_it_once(tmp_path: Path) -> None:
    with running("postgres", tmp_path / "postgres") as server:
        assert isinstance(server, Postgres)
        name = database_name()
        await server.create(name)
        done = await asyncio.gather(*(asyncio.to_thread(migrated, tmp_path, server.url(name)) for _ in range(5)))
        assert [one.returncode for one in done] == [0] * 5, done
