"""What CI asks for before it tests, and what a run without options leaves out. Only shells run here: whether meter
installs beside others today is for `.ci/neighbours` itself to say, which asks the registry.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import HOW_TO_RUN

CI = Path(__file__).parents[2] / ".ci"
OWNERS_HAVE = {"fastapi", "litellm[proxy]", "openai", "langchain", "boto3", "celery[redis]"}

pytestmark = pytest.mark.skipif(not CI.is_dir(), reason="only a checkout has .ci")


def _stand_in(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def _run(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A copy of a script of `.ci` in a folder of its own, where programs of `bin/` come first."""
    (folder / ".ci").mkdir()
    shutil.copy(CI / script, folder / ".ci")
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    command = [str(folder / ".ci" / script), *arguments]
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=False)


def test_u24_each_package_is_asked_for_by_itself(tmp_path: Path) -> None:
    """U24: nginx is there and its modules are not."""
    tools = tmp_path / "bin"
    tools.mkdir()
    _stand_in(
        tools,
        "dpkg-query",
        'case "$4" in nginx|redis-server) printf installed;; haproxy) printf config-files;; *) exit 1;; esac',
    )
    _stand_in(tools, "apt-get", f'echo "$@" >>{tmp_path}/asked')
    _stand_in(tools, "sudo", 'exec "$@"')
    _stand_in(tools, "python3", "exit 7")

    assert _run("run", tmp_path).returncode == 7

    update, install = (tmp_path / "asked").read_text().splitlines()
    assert update.startswith("update")
    asked = {word for word in install.split() if not word.startswith("-")} - {"install"}
    assert {"libnginx-mod-http-lua", "libnginx-mod-http-js", "lua-cjson", "haproxy", "pgbouncer"} <= asked
    assert not {"nginx", "redis-server"} & asked


def test_u24_nothing_is_installed_where_all_is_there(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    _stand_in(tools, "dpkg-query", "printf installed")
    _stand_in(tools, "apt-get", f'echo "$@" >>{tmp_path}/asked')
    _stand_in(tools, "python3", "exit 7")

    assert _run("run", tmp_path).returncode == 7
    assert not (tmp_path / "asked").exists()


def test_c5_a_neighbour_that_cannot_be_beside_meter_is_red(tmp_path: Path) -> None:
    """C5: the newest release of the neighbour is what counts, not the one that a resolver would rather have."""
    tools = tmp_path / "bin"
    tools.mkdir()
    wants = 'asked=$(cat); echo "$asked" >>' + str(tmp_path / "asked")
    refuses = '*meter*narrow*) echo "narrow wants another redis"; exit 1'
    meets = f'case "$asked" in {refuses};; meter*) echo redis==5.3.1;; *) echo "$asked==9.1";; esac'
    _stand_in(tools, "uv", f"{wants}\n{meets}")

    run = _run("neighbours", tmp_path, "wide", "narrow")

    assert run.returncode == 1
    assert "wide==9.1" in run.stdout and "ok: redis 5.3.1" in run.stdout
    assert "narrow==9.1" in run.stdout and "IMPOSSIBLE\nnarrow wants another redis" in run.stdout


def test_c5_ci_asks_for_what_owners_have() -> None:
    names = (CI / "neighbours").read_text().partition("neighbours=(")[2].partition(")")[0]

    assert {name.strip("'") for name in names.split()} >= OWNERS_HAVE
    assert ".ci/neighbours" in (CI / "run").read_text()


def test_u22_whatever_a_run_leaves_out_is_told_at_its_end(request: pytest.FixtureRequest) -> None:
    """U22: each mark that `pytest` alone passes over has a line that says what it is and how to run it."""
    options: list[str] = request.config.getini("addopts")
    left_out = {word for word in options[options.index("-m") + 1].split() if word not in ("not", "and")}

    assert left_out == set(HOW_TO_RUN)
