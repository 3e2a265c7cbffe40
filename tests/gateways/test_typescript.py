"""The client of examples/clients/typescript: generated from docs/openapi.json, compiled, and run against a sidecar."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from meter.testing import app_in_step
from tests.api.sidecar import serving

EXAMPLE = Path(__file__).parents[2] / "examples" / "clients" / "typescript"
DOCUMENT = EXAMPLE.parents[2] / "docs" / "openapi.json"
MINUTES_5 = 300

pytestmark = pytest.mark.gateways


def run(folder: Path, *words: str, **environment: str) -> str:
    """What a command of the client's own prints."""
    found = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=MINUTES_5,
        check=False,
    )
    assert found.returncode == 0, f"{' '.join(words)}\n{found.stdout}{found.stderr}"
    return found.stdout


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """The client as its README makes it, in a folder of its own. Skips where there is no node, or no registry."""
    if shutil.which("npm") is None:
        pytest.skip("no npm: apt-get install nodejs npm")
    folder = tmp_path / "examples" / "clients" / "typescript"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules", "dist", "schema.ts"))
    (tmp_path / "docs").mkdir()
    shutil.copy(DOCUMENT, tmp_path / "docs" / "openapi.json")
    fetched = subprocess.run(
        ["npm", "ci", "--silent"], cwd=folder, capture_output=True, text=True, timeout=MINUTES_5, check=False
    )
    if fetched.returncode:
        pytest.skip(f"npm has nobody to ask: {fetched.stderr[-200:]}")
    run(folder, "npm", "run", "generate")
    run(folder, "npm", "run", "build")
    return folder


def test_what_is_generated_compiles_and_does_what_an_application_does(built: Path) -> None:
    with serving(app_in_step()) as base:
        told = run(built, "npm", "run", "-s", "start", METER_URL=base)

    assert told.endswith("has 75 credits: adjust, deduct, commit, reserve, grant\n")


def test_a_member_that_there_is_not_does_not_compile(built: Path) -> None:
    story = built / "src" / "story.ts"
    story.write_text(story.read_text().replace("held.data;", "held.data.data;", 1))
    found = subprocess.run(["npx", "tsc"], cwd=built, capture_output=True, text=True, timeout=MINUTES_5, check=False)

    assert found.returncode != 0 and "Property 'data' does not exist" in found.stdout
