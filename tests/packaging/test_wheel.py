"""The built wheel: what it installs, whether a user's type checker sees our types, and that it hides no folders."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parents[2]
PROGRAM = """
from meter import CreditDeductionMiddleware, Meter, Refusal
async def spend(meter: Meter) -> float:
    answer = await meter.deduct("user-1", 30)
    return 0.0 if isinstance(answer, Refusal) else float(answer.available)
"""
OWN_WORKERS = "raise SystemExit('the folder of somebody else was imported')\n"


@pytest.fixture(scope="module")
def wheel() -> Path:
    """What `python -m build --wheel` made."""
    found = sorted((ROOT / "dist").glob("*.whl"))
    assert len(found) == 1, "python -m build --wheel"
    return found[0]


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the wheel and mypy."""
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder, with_pip=True)
    made = folder / "bin" / "python"
    subprocess.run([made, "-m", "pip", "install", "--quiet", wheel, "mypy"], check=True)
    return made


def test_it_installs_nothing_but_meter(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()

    assert {name.split("/")[0].split("-")[0] for name in names} == {"meter", "meter_sidecar"}
    assert not any(name.startswith("meter/bench/") for name in names)
    assert {"meter/py.typed", "/".join(("meter", "_lua", "apply.lua"))} <= set(names)


def test_a_users_program_passes_mypy_strict(python: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = subprocess.run(
        [python, "-m", "mypy", "--strict", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (run.returncode, run.stdout) == (0, "Success: no issues found in 1 source file\n")


@pytest.fixture(scope="module")
def tester(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the extra `testing` and a plugin for coroutines beside ours."""
    folder = tmp_path_factory.mktemp("tester")
    venv.create(folder, with_pip=True)
    made = folder / "bin" / "python"
    subprocess.run([made, "-m", "pip", "install", "--quiet", f"{wheel}[testing]", "pytest-asyncio"], check=True)
    return made


@pytest.mark.parametrize(
    "options",
    [
        "",
        "-p no:asyncio",
        "-p no:asyncio -p no:anyio",
        "-o asyncio_mode=auto",
        "-p no:asyncio -o anyio_mode=auto",
    ],
)
def test_u8_the_example_passes_beside_every_plugin_for_coroutines(tester: Path, tmp_path: Path, options: str) -> None:
    (tmp_path / "test_example.py").write_text((ROOT / "docs" / "testing.md").read_text().split("```")[1][6:])
    scope = "" if "no:asyncio" in options else " -o asyncio_default_fixture_loop_scope=function"
    run = subprocess.run(
        [str(tester), "-m", "pytest", "-q", "-W", "error", *(options + scope).split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 passed" in run.stdout


def test_u14_an_extra_is_added_to_what_is_installed(tester: Path) -> None:
    """As README says, and as every message about a missing extra does."""
    command = [str(tester), "-m", "pip", "install", "--quiet", "meter-sidecar[mongo]"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (run.returncode, run.stderr) == (0, "")
    subprocess.run([tester, "-c", "import pymongo, meter"], check=True)


def test_bench_says_how_to_get_it(python: Path, tmp_path: Path) -> None:
    run = subprocess.run([python, "-m", "meter", "bench"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert run.returncode == 2
    assert "pip install -e '.[dev]'" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("installed", ["wheel", "editable"])
def test_u3_a_projects_own_workers_folder_is_left_alone(
    python: Path, tmp_path: Path, installed: str, redis_url: str
) -> None:
    for name in ("workers", "lua"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(OWN_WORKERS)
    (tmp_path / "workers" / "settings.py").write_text(OWN_WORKERS)
    command = [python if installed == "wheel" else sys.executable, "-m", "meter"]
    env = {**os.environ, "METER_REDIS_URL": redis_url, "METER_KEY_PREFIX": f"u3-{installed}", "METER_REDIS_UNSAFE": "1"}
    worker = subprocess.Popen([*command, "worker"], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    try:
        assert worker.stderr is not None
        assert "meter worker starts" in worker.stderr.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(3)  # it goes on working
    finally:
        worker.kill()
        worker.communicate()
