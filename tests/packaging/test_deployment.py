"""The files of examples/deployment: what they name exists, and what they start works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from redis import Redis

from meter.config import Settings
from tests.api.sidecar import wait_for
from tests.e2e.processes import ROOT, MeterProcess, environment, free_port, run_meter

FOLDER = ROOT / "examples" / "deployment"
MANIFESTS = sorted((FOLDER / "kubernetes").glob("*.yaml"))
UNITS = sorted((FOLDER / "systemd").glob("*.service"))
FILES = [path for path in FOLDER.rglob("*") if path.is_file() and path.parent.name != "secrets"]
KUBERNETES = "1.34"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
OURS = ("migrate", "meter", "worker")


def test_every_setting_that_is_named_is_one() -> None:
    known = {f"METER_{name.upper()}" for name in Settings.model_fields}
    named = {name for path in FILES for name in re.findall(r"\bMETER_[A-Z_]+", path.read_text())}
    assert named - known == set() and len(named) > 5


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_takes_each_manifest(path: Path) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="uv pip install --group deployment")
    documents = list(yaml.safe_load_all(path.read_text()))
    for document in documents:
        schemas.validate(document, KUBERNETES, strict=True)
    for container in _containers(documents):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert "limits" in container["resources"] and "cpu" not in container["resources"]["limits"]


def _containers(documents: list[Any]) -> list[Any]:
    specs = [one["spec"]["template"]["spec"] for one in documents if "template" in one.get("spec", {})]
    every = [one for spec in specs for one in (*spec["containers"], *spec.get("initContainers", []))]
    return [one for one in every if one["image"].startswith("meter:")]


def test_a_drain_ends_before_kubernetes_kills() -> None:
    text = (FOLDER / "kubernetes" / "meter.yaml").read_text()
    spec = next(yaml.safe_load_all(text))["spec"]["template"]["spec"]
    (drain,) = [int(one["value"]) for one in spec["containers"][0]["env"] if one["name"] == "METER_DRAIN_SECONDS"]
    probe = spec["containers"][0]["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] <= drain
    assert drain + 10 < spec["terminationGracePeriodSeconds"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_takes_each_unit(path: Path, tmp_path: Path) -> None:
    unit = tmp_path / path.name.replace("@", "@one")
    program = shutil.which("true")
    unit.write_text(path.read_text().replace("/opt/meter/bin/meter", str(program)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []


def test_each_command_line_is_one_of_ours() -> None:
    lines = [line.split()[1:] for path in UNITS for line in re.findall(r"(?<=bin/)meter [^\n]*", path.read_text())]
    lines += [COMPOSE["services"][name]["command"] for name in OURS]
    lines += [one["args"] for path in MANIFESTS for one in _containers(list(yaml.safe_load_all(path.read_text())))]
    assert len(lines) > 8
    for command in {line[0] for line in lines}:
        told = run_meter(command, "--help", cwd=ROOT, env=environment()).stdout
        for option in (part for line in lines if line[0] == command for part in line if part.startswith("--")):
            assert option in told, (command, option)


def test_the_image_copies_what_there_is() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE) for name in line.split()]
    assert copied and all((ROOT / name).exists() for name in copied)
    allowed = (FOLDER / "Dockerfile.dockerignore").read_text()
    assert all(f"!{name}\n" in allowed for name in copied)


@pytest.mark.slow
def test_what_compose_starts_works_in_its_order(tmp_path: Path, redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        client.flushall()
    settings = {name: str(value) for name, value in COMPOSE["services"]["meter"]["environment"].items()}
    (tmp_path / "store_url").write_text("sqlite:///meter.db")
    ports = {"serve": free_port(), "worker": free_port()}
    env = {**os.environ, **settings, "METER_REDIS_UNSAFE": "1", "METER_REDIS_URL": redis_url}
    env |= {"METER_HOST": "127.0.0.1", "METER_PORT": str(ports["serve"])}
    env["METER_STORE_URL_FILE"] = str(tmp_path / "store_url")
    assert run_meter(*COMPOSE["services"]["migrate"]["command"], cwd=tmp_path, env=env).returncode == 0
    made = run_meter("keys", "create", "--admin", cwd=tmp_path, env=env)
    assert made.returncode == 0, made.stderr
    arguments = ["127.0.0.1" if part == "0.0.0.0" else part for part in COMPOSE["services"]["worker"]["command"]]
    arguments[arguments.index("--port") + 1] = str(ports["worker"])
    with (
        MeterProcess(*COMPOSE["services"]["meter"]["command"], cwd=tmp_path, env=env, name="serve"),
        MeterProcess(*arguments, cwd=tmp_path, env=env, name="worker"),
    ):
        for port in ports.values():
            wait_for(partial(_is_ready, port), f"{port} is ready", seconds=60)
        assert httpx2.get(f"http://127.0.0.1:{ports['serve']}/credits/balance/u").status_code == 401


def _is_ready(port: int) -> bool:
    try:
        return bool(httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=5).json().get("status") == "ok")
    except httpx2.HTTPError:
        return False
