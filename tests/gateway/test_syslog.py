"""The syslog listener: meter/gateway/syslog.py."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from meter.config import load_settings
from meter.errors import ConfigError
from tests.api.sidecar import wait_for
from tests.gateway.caller import Caller, calling
from tests.gateways.process import free_port

NGINX = "<190>Nov 22 14:00:00 nginx: "
HAPROXY = "<134>1 2026-11-22T14:00:00.000Z host haproxy 7 - - "


def datagrams(address: str, *texts: str) -> None:
    """Sends syslog datagrams."""
    kind, _, path = address.partition(":")
    family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for text in texts:
            sender.sendto(text.encode(), path if kind == "unix" else (kind, int(path)))


def entry(reservation_id: str, usage: int) -> str:
    return json.dumps({"reservation_id": reservation_id, "status": "200", "usage": str(usage)})


def reached(caller: Caller, available: int) -> None:
    wait_for(lambda: caller.balance() == (available, 0), f"a balance of {available}")


@pytest.mark.parametrize("kind", ["udp", "unix"])
def test_datagrams_settle_their_reservations(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "log.sock"
    address = f"unix:{path}" if kind == "unix" else f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    with calling(syslog=address) as caller:
        caller.add("u", 1000)
        first, second, third = caller.held(), caller.held(), caller.held()

        datagrams(
            address,
            NGINX + entry(first, 30),
            "no json at all",
            NGINX + '{"broken":',
            NGINX + '{"reservation_id":"unknown","usage":1}',
            NGINX + entry(first, 30),
            HAPROXY + entry(second, 20) + "\n",
            entry(third, 10) + "\0",
        )

        reached(caller, 940)
    assert not path.exists()


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'log.sock'}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left:
        left.bind(str(tmp_path / "log.sock"))
    with calling(syslog=address) as caller:
        caller.add("u", 1000)

        datagrams(address, entry(caller.held(), 30))

        reached(caller, 970)


def test_what_redis_cannot_decide_now_is_tried_again() -> None:
    address = f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    with calling(syslog=address) as caller:
        caller.add("u", 1000)
        reservation_id = caller.held()
        caller.redis.hset("meter:{p0}:meta", "state", "closed")
        refused = caller.http.get("/metrics").text.count('outcome="failed"')
        datagrams(address, entry(reservation_id, 30))
        wait_for(lambda: caller.http.get("/metrics").text.count('outcome="failed"') > refused, "a first try")

        caller.redis.hset("meter:{p0}:meta", "state", "open")

        reached(caller, 970)


@pytest.mark.parametrize("address", ["0.0.0.0:514", "10.0.0.1:514", "example.com:514", "127.0.0.1", "unix:", "514"])
def test_only_the_own_machine_is_listened_to(address: str) -> None:
    with pytest.raises(ConfigError, match="METER_SYSLOG"):
        load_settings(syslog=address)
