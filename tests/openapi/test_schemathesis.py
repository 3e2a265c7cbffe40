"""C14: what the document allows is taken, and what it forbids is refused, by a sidecar that runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from meter.testing import fake_app
from tests.api.sidecar import serving

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "phases",
    [
        pytest.param("examples,coverage", marks=pytest.mark.slow),
        pytest.param("fuzzing", marks=pytest.mark.long),  # draws other data each time, whatever the seed
    ],
)
def test_c14_schemathesis_finds_nothing_to_report(phases: str) -> None:
    """Examples, bounds and random data, valid and not, for every call; tests/openapi/schemathesis.toml says how."""
    config = ROOT / "tests" / "openapi" / "schemathesis.toml"
    with serving(fake_app(store_url="memory://", test_clock=True)) as url:
        command = [
            "--config-file",
            str(config),
            "run",
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
