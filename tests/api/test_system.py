"""A11: `GET /system/status`, with everything there and with everything away."""

from __future__ import annotations

from pathlib import Path

import httpx2
from fakeredis import FakeServer
from starlette.testclient import TestClient

from meter.app import create_app
from meter.config import load_settings
from meter.health.presence import Sidecar, Worker
from meter.keys import workers_key
from meter.testing import fake_app, fake_redis
from tests.api.sidecar import serving, wait_for
from tests.servers import Server, real_server


def told(server: Server) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = server.client.hgetall(workers_key("meter"))
    return found


def test_a11_what_is_seen_of_a_real_deployment(redis_url: str, tmp_path: Path) -> None:
    """Figures of a real Redis, both kinds of process, and what is wrong, in words."""
    server = real_server(redis_url)
    settings = load_settings(redis_url=redis_url, store_url=f"sqlite:///{tmp_path}/m.db")
    with serving(create_app(settings)) as base, httpx2.Client(base_url=base) as http:
        for _ in range(3):
            assert http.post("/credits/add", json={"user_id": "u", "amount": 1}).status_code == 200
        wait_for(lambda: any(b'"sidecar_id"' in text for text in told(server).values()), "the sidecar tells of itself")
        [text] = [text for text in told(server).values() if b'"sidecar_id"' in text]
        own = Sidecar.model_validate_json(text)
        other = own.model_copy(update={"sidecar_id": "other"})
        dead = own.model_copy(update={"sidecar_id": "dead", "seen_at_ms": 1})
        worker = Worker(worker_id="w", version="0", started_at_ms=1, seen_at_ms=own.seen_at_ms)
        for name, one in {"other": other, "dead": dead, "w": worker}.items():
            server.client.hset(workers_key("meter"), name, one.model_dump_json())
        status = http.get("/system/status").json()

    assert (status["state"], status["sentence"], status["warnings"]) == ("ok", "Serving.", [])
    assert [(one["kind"], one["id"]) for one in status["processes"]] == [
        *sorted([("sidecar", own.sidecar_id), ("sidecar", "other")]),
        ("worker", "w"),
    ]
    redis = status["redis"]
    assert redis["reachable"] and redis["memory_bytes"] > 100_000 and redis["us_per_op"] > 0
    assert status["outbox"]["waiting"] == 3 and status["outbox"]["limit"] == settings.outbox_max
    assert status["store"] == {"kind": "sqlite", "rows": 0, "reachable": True}
    assert own.sidecar_id.encode() not in told(server)  # it ended and said so


def test_a11_without_a_redis_it_still_answers() -> None:
    server = FakeServer()
    with TestClient(fake_app(server, redis_timeout_ms=20)) as http:
        server.connected = False
        status = http.get("/system/status").json()
    assert status["state"] == "unavailable"
    assert status["sentence"].startswith("Not serving: ")
    assert status["redis"] == {
        "reachable": False,
        "us_per_op": None,
        "memory_bytes": None,
        "memory_share": None,
        "aof_ok": None,
    }
    assert status["store"] == {"kind": "none", "rows": None, "reachable": False}


def test_a11_without_a_worker_it_says_what_stops() -> None:
    settings = {"store_url": "memory://a11", "redis_url": "redis://unused"}
    with TestClient(create_app(load_settings(**settings), fake_redis())) as http:
        status = http.get("/system/status").json()
    assert (status["state"], status["sentence"]) == ("degraded", "Serving. One thing needs somebody.")
    assert status["warnings"] == ["No worker seen: nothing is stored, granted or sent. Start `meter worker`."]
