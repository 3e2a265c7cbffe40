"""Two versions on one keyspace: a sidecar and a worker of before beside those of now, all of them killed at random.

The version of before is the oldest commit whose store has the schema of now: older processes do not start on a newer
one. Its tree comes out of git into a folder of its own.
"""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, free_port
from tests.faults.deployment import Nursery
from tests.faults.town import Plan, Town, opened_town
from tests.faults.trial import Trial

pytestmark = pytest.mark.faults

KILLS = 14
BETWEEN = 20
"""Transactions from one to the next; fewer would prove nothing."""
SCHEMA = ("meter/store/sql/migrations/versions", "meter/store/mongo/schema.py")
CODE = ("meter", "lua", "tests", "pyproject.toml")


def _git(*arguments: str) -> bytes:
    found = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"no git history here: {found.stderr.decode(errors='replace').strip()[:200]}")
    return found.stdout


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the version of before."""
    commit = _git("log", "-1", "--format=%H", "--", *SCHEMA).decode().strip()
    if not commit or not _git("diff", "--name-only", commit, "--", "meter", "lua"):
        pytest.skip("the schema of the store is of this very version: none of before starts on it")
    folder = tmp_path_factory.mktemp("before")
    with tarfile.open(fileobj=io.BytesIO(_git("archive", commit, *CODE))) as tree:
        tree.extractall(folder, filter="data")
    return folder


async def test_two_versions_at_once_lose_and_double_nothing(before: Path, tmp_path: Path) -> None:
    """Whoever answers, and whichever flushes."""
    lot = random.Random(7)
    async with opened_town(Plan(tmp_path, users=40, code=before)) as town:
        versions = {town.urls[0]: before, _in_the_place_of(town, town.urls[1]): ROOT}
        nurseries = {before: town.deployment.nursery}
        nurseries[ROOT] = Nursery(tmp_path, town.deployment.env | {"PYTHONPATH": str(ROOT)}, ROOT)
        try:
            town.deployment.nursery.kill(town.workers[0])
            nurseries[ROOT].bear()
            trial = Trial(town)
            async with trial.under_load():
                for _ in range(KILLS):
                    if lot.random() < 0.4:
                        url, code = lot.choice(list(versions.items()))
                        town.restart_sidecar(url, PYTHONPATH=str(code))
                    else:
                        nursery = lot.choice(list(nurseries.values()))
                        nursery.kill(nursery.workers[0])
                        nursery.bear()
                    await town.works(BETWEEN)
            score = await trial.verdict()
        finally:
            nurseries[ROOT].close()
    print(f"two versions: {KILLS} kills, {score.line()}")  # noqa: T201
    assert score.findings == []
    assert score.unknown == 0
    assert score.acknowledged > KILLS * BETWEEN // 2


def _in_the_place_of(town: Town, url: str) -> str:
    """A sidecar of now where one of before was; its URL."""
    town.sidecars.pop(url).kill()
    return town.serve(free_port(), PYTHONPATH=str(ROOT))
