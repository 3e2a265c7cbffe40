"""What `/metrics` says of gateways: meter/gateway/counts.py."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from meter.engine import operations
from meter.errors import Unavailable
from meter.gateway import syslog
from meter.gateway.counts import GatewayCounts
from meter.gateway.settlement import GatewaySettlements
from meter.gateway.syslog import dropped_by_kernel
from tests.api.sidecar import wait_for
from tests.api.test_metrics import samples
from tests.gateway.caller import Caller, calling
from tests.gateways.process import free_port


def counted(caller: Caller, name: str) -> dict[str, float]:
    """A counter by the values of its labels: {"commit charged": 1}."""
    prefix = f"meter_gateway_{name}_total{{"
    return {
        " ".join(reversed([part.split('"')[1] for part in key.removeprefix(prefix).split(",")])): value
        for key, value in samples(caller.http.get("/metrics").text).items()
        if key.startswith(prefix)
    }


def test_settlements_are_counted_by_way_and_outcome(caller: Caller) -> None:
    late, first, second, failed = caller.held(), caller.held(), caller.held(), caller.held()
    for _ in range(2):
        caller.commit(x_reservation_id=first, x_credits_actual="5")
    caller.commit(x_reservation_id=first, x_credits_actual="6")
    caller.commit(x_reservation_id="q0_nobody", x_credits_actual="6")
    caller.logs({"reservation_id": second, "usage": 5}, {"reservation_id": failed, "status": 500}, {"path": "/"}, 1)
    caller.advance(301)
    caller.commit(x_reservation_id=late, x_credits_actual="5")

    assert counted(caller, "settlements") == {
        "commit charged": 1,
        "commit repeated": 1,
        "commit ended": 1,
        "commit unknown": 1,
        "commit late": 1,
        "logs charged": 1,
        "logs released": 1,
    }
    assert counted(caller, "log_entries") == {"logs read": 2, "logs ignored": 1, "logs malformed": 1}
    assert counted(caller, "missing_usage") == {}


@pytest.mark.parametrize(("policy", "outcome"), [("release", "released"), ("estimate", "charged")])
def test_what_the_policy_makes_of_missing_usage_is_counted(policy: str, outcome: str) -> None:
    with calling(gateway_on_missing_usage=policy) as caller:
        caller.add("u", 1000)
        caller.commit(x_reservation_id=caller.held())
        caller.commit(x_reservation_id=caller.held(), x_upstream_status="500")  # costs nothing anyway
        caller.logs({"reservation_id": caller.held(), "status": 499})

        assert counted(caller, "missing_usage") == {f"commit {outcome}": 1, "logs charged": 1}


def test_deliveries_without_redis_are_unavailable(caller: Caller) -> None:
    held = caller.held()
    caller.redis.hset("meter:{p0}:meta", "state", "closed")
    caller.http.post("/gateway/logs", json={"reservation_id": held, "usage": 5})

    assert counted(caller, "settlements") == {"logs unavailable": 1}


def test_datagrams_are_counted() -> None:
    address = ("127.0.0.1", free_port(socket.SOCK_DGRAM))
    with calling(syslog=f"{address[0]}:{address[1]}") as caller, socket.socket(type=socket.SOCK_DGRAM) as sender:
        for text in (b"nothing", b'<1>{"path":"/"}', b'<1>{"reservation_id":"q0_nobody","usage":1}'):
            sender.sendto(text, address)
        wait_for(lambda: counted(caller, "settlements") == {"syslog unknown": 1}, "the last datagram")

        assert counted(caller, "log_entries") == {"syslog malformed": 1, "syslog ignored": 1, "syslog read": 1}
        assert counted(caller, "dropped") == {}


def test_what_the_kernel_drops_is_found_by_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as listening, socket.socket(type=socket.SOCK_DGRAM) as sender:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        listening.bind(("127.0.0.1", 0))
        inode = os.fstat(listening.fileno()).st_ino
        if not any(str(inode) in table.read_text() for table in syslog._TABLES if table.exists()):
            pytest.skip("this kernel does not tell")
        assert dropped_by_kernel(inode) == 0
        for _ in range(100):
            sender.sendto(b"x" * 500, listening.getsockname())
        assert dropped_by_kernel(inode) > 50
    assert dropped_by_kernel(inode) == 0
    monkeypatch.setattr(syslog, "_TABLES", (Path("/nowhere"),))
    assert dropped_by_kernel(inode) == 0


async def test_a_settlement_too_many_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Away:
        """An engine that decides nothing."""

        def submit_for_reservation(self, *_: object) -> None:
            raise Unavailable("redis", "away")

        async def run_for_reservation(self, *_: object) -> str:
            raise Unavailable("redis", "away")

    monkeypatch.setattr("meter.charging.settlements.WAITING_MAX", 2)
    monkeypatch.setattr("meter.charging.settlements.DRAIN_SECONDS", 0.0)
    counts = GatewayCounts()
    settlements = GatewaySettlements(Away(), counts)  # type: ignore[arg-type]
    for number in range(3):
        settlements.settle(operations.release(f"r0_{number}"), "syslog")
    await settlements.close()

    assert dict(counts.dropped) == {("settlement",): 1}
