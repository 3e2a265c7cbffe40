"""Workers killed all the time, two at once: everything acknowledged is in the store exactly once.

METER_FAULT_SECONDS=120 makes it long, METER_FAULT_TRACE names a production trace to be replayed instead.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.conftest import SECONDS
from tests.faults.deployment import chaos, deployed, sound, write_trace

pytestmark = pytest.mark.slow


async def test_killed_workers_lose_and_double_nothing(
    tmp_path: Path, store_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = os.environ.get("METER_FAULT_TRACE")
    trace = Path(given) if given else write_trace(tmp_path / "trace.csv", 400)
    async with deployed(tmp_path, store_url) as deployment:
        figures = await chaos(deployment, trace, SECONDS, users=200 if given else 20)
    with capsys.disabled():
        if given:
            print(f"\n{store_url.partition(':')[0]}: {figures}")  # noqa: T201
    assert sound(figures), figures
    assert figures.kills >= 5
