"""U3: a project's own `workers/` wins, package or not, also where meter is installed from a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OWN = "class WorkerSettings:\n    functions = []\nprint('the project')\n"
AS_ARQ = "import sys; sys.path.append('.'); import workers.settings"
ASKED = {"module": ["-c", "import workers.settings"], "arq": ["-P", "-c", AS_ARQ]}
"""How it is asked for: `-c` has the working folder first in its path, arq appends it."""


def _run(folder: Path, *arguments: str, **env: str) -> str:
    environment = {**os.environ, "PYTHONPATH": "", **env}
    run = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, text=True, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("kind", ["package", "folder", "module"])
def test_u3_a_projects_own_workers_win(tmp_path: Path, kind: str, asked: str) -> None:
    if kind == "module":
        (tmp_path / "workers.py").write_text("import sys\nsettings = sys.modules['workers.settings'] = 1\n" + OWN)
    else:
        (tmp_path / "workers").mkdir()
        (tmp_path / "workers" / "settings.py").write_text(OWN)
    if kind == "package":
        (tmp_path / "workers" / "__init__.py").touch()
    assert _run(tmp_path, *ASKED[asked]) == "the project"


def test_u3_a_folder_without_settings_of_its_own_keeps_its_modules(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "mail.py").write_text("print('the project')\n")
    assert _run(tmp_path, "-c", "import workers.mail") == "the project"


def test_the_door_for_arq_opens_in_a_checkout() -> None:
    told = _run(ROOT, "-c", "from workers.settings import WorkerSettings; print(WorkerSettings.__module__)")
    assert told == "meter.worker.schedule"


def test_a_second_checkout_on_the_path_is_no_project(tmp_path: Path) -> None:
    """Each of the two doors would look for the other."""
    (tmp_path / "workers").mkdir()
    shutil.copy(ROOT / "workers" / "settings.py", tmp_path / "workers")
    told = _run(tmp_path, "-c", "from workers.settings import WorkerSettings; print(WorkerSettings.__module__)")
    assert told == "meter.worker.schedule"
