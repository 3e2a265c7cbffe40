"""C14: what the document allows is taken, and what it forbids is refused, by a sidecar that runs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Literal

import pytest
from fakeredis import FakeServer

from meter.contract.keys import IssuedKey
from meter.testing import fake_app, fake_meter
from tests.api.sidecar import serving

ROOT = Path(__file__).parents[2]


async def _operators_key(server: FakeServer, store: str) -> str:
    async with fake_meter(server, store_url=store, test_clock=True) as meter:
        made = await meter.create_key(scopes=["admin:read", "admin:write"])
        assert isinstance(made, IssuedKey) and made.key
        return made.key


@pytest.mark.parametrize(
    "phases",
    [
        pytest.param("examples,coverage", marks=pytest.mark.slow),
        pytest.param("fuzzing", marks=pytest.mark.long),  # draws other data each time, whatever the seed
    ],
)
@pytest.mark.parametrize("auth", ["none", "keys"])
def test_c14_schemathesis_finds_nothing_to_report(phases: str, auth: Literal["none", "keys"]) -> None:
    """Examples, bounds and random data, valid and not, for every call; tests/openapi/schemathesis.toml says how. Under
    keys an operator's goes with each.
    """
    config = ROOT / "tests" / "openapi" / "schemathesis.toml"
    server, store = FakeServer(), f"memory://{uuid.uuid4()}"
    key = asyncio.run(_operators_key(server, store)) if auth == "keys" else ""
    with serving(fake_app(server, store_url=store, test_clock=True, auth=auth)) as url:
        command = [
            "--config-file",
            str(config),
            "run",
            *(["--header", f"X-Meter-Key: {key}"] if key else []),
            f"{url}/openapi.json",
            f"--phases={phases}",
            "--continue-on-failure",
            "--no-color",
        ]
        done = subprocess.run(
            [Path(sys.executable).parent / "schemathesis", *command],
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert "Tested: " in done.stdout
