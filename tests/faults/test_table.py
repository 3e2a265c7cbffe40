"""The short form of the fault suite: each group of faults of table.py happens to a town at work, then all is checked.

`python -m tests.faults.soak` is the long form (docs/testing.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.table import TABLE
from tests.faults.town import Plan, mounted_disk, opened_town, unmount
from tests.faults.trial import Trial
from tests.store.servers import Postgres, database_name

pytestmark = pytest.mark.faults

PEACE_SECONDS = 0.3
OPERATIONS = 100
"""Fewer in a group would prove nothing."""


@pytest.fixture(scope="module")
async def on_sqlite(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Trial]:
    """A town whose store is SQLite, on a disk of its own where one can be had."""
    folder = tmp_path_factory.mktemp("town")
    disk = mounted_disk(folder / "disk", 1024)
    try:
        async with opened_town(Plan(folder, users=40, disk=disk)) as town:
            yield Trial(town)
    finally:
        unmount(disk)


@pytest.fixture(scope="module")
async def on_postgres(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> AsyncIterator[Trial]:
    """A town whose store is PostgreSQL."""
    name, folder = database_name(), tmp_path_factory.mktemp("town")
    await postgres.create(name)
    async with opened_town(Plan(folder, users=40), postgres=postgres, database=name) as town:
        yield Trial(town)
    await postgres.drop(name)


@pytest.mark.parametrize("group", TABLE)
async def test_nothing_is_lost_on_sqlite(on_sqlite: Trial, group: str) -> None:
    await survives(on_sqlite, group)


@pytest.mark.postgres
@pytest.mark.parametrize("group", ["store"])
async def test_nothing_is_lost_on_postgres(on_postgres: Trial, group: str) -> None:
    await survives(on_postgres, group)


async def survives(trial: Trial, group: str) -> None:
    """All faults of a group that can happen here, under load, then the verdict."""
    left_out = {fault.name: fault.missing(trial.town) for fault in TABLE[group] if fault.missing(trial.town)}
    async with trial.under_load():
        await asyncio.sleep(PEACE_SECONDS)
        for fault in TABLE[group]:
            if fault.name not in left_out:
                await trial.inflict(fault)
                await asyncio.sleep(PEACE_SECONDS)
    score = await trial.verdict()
    print(f"{group}: {score.line()}; left out: {left_out or 'nothing'}")  # noqa: T201
    assert score.findings == []
    assert score.unknown == 0
    assert score.acknowledged > OPERATIONS


def test_every_fault_has_a_name_of_its_own() -> None:
    names = [fault.name for faults in TABLE.values() for fault in faults]
    assert len(names) == len(set(names)) >= 34
    assert all(Path(__file__).parent.joinpath("table.py").read_text().count(f'"{name}"') == 1 for name in names)
