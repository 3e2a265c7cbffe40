"""examples/monitoring: rules and a board that Prometheus and Grafana take, on series that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from fakeredis import FakeRedis, FakeServer
from starlette.testclient import TestClient

from meter.health.presence import JobRuns, Worker
from meter.keys import workers_key
from meter.testing import app_in_step
from tests.e2e.processes import ROOT

FOLDER = ROOT / "examples" / "monitoring"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]
BOARD: dict[str, Any] = json.loads((FOLDER / "board.json").read_text())


def queries() -> Iterator[str]:
    yield from (str(rule["expr"]) for rule in RULES)
    yield from (target["expr"] for panel in BOARD["panels"] for target in panel["targets"])


def served() -> set[str]:
    """The series of a sidecar that has seen a worker which has done something of everything."""
    server = FakeServer()
    with TestClient(app_in_step(server)) as http:
        http.post("/credits/add", json={"user_id": "u", "amount": 1})
        worker = Worker(
            worker_id="w",
            version="1",
            started_at_ms=1,
            seen_at_ms=int(1000 * time.time()),
            jobs={"expire": JobRuns(done=1, failed=1)},
            deliveries={"failed": 1},
            set_aside={"subscriptions": 1},
        )
        FakeRedis(server=server).hset(workers_key("meter"), "w", worker.model_dump_json())
        text = http.get("/metrics").text
    return {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}


def test_every_series_that_is_asked_for_is_served() -> None:
    asked = {name for query in queries() for name in re.findall(r"\bmeter_[a-z_]+", query)}
    assert asked - served() == set() and len(asked) > 8


def test_every_rule_says_what_it_means_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES) >= 10
    for rule in RULES:
        assert rule["annotations"]["summary"].endswith(".") and rule["annotations"]["remedy"], rule["alert"]
        assert rule["labels"]["severity"] in ("page", "warn")


def test_the_board_has_panels_that_do_not_overlap() -> None:
    cells = [
        (panel["gridPos"]["x"] + dx, panel["gridPos"]["y"] + dy)
        for panel in BOARD["panels"]
        for dx in range(panel["gridPos"]["w"])
        for dy in range(panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_prometheus_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool: apt-get install prometheus")
    checked = subprocess.run(
        [promtool, "check", "rules", str(FOLDER / "alerts.yaml")], capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr.decode()
