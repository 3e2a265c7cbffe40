"""The sidecar of the gateway tests: a real `meter serve` on a Redis of its own, and how tests look into it."""

from __future__ import annotations

import json
import socket
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx2
from redis import Redis

from tests.api.sidecar import wait_for
from tests.gateways.process import free_port, running
from tests.gateways.valve import Valve, running_valve
from tests.partition import entries_of
from tests.servers import embedded_server

GRANTED = 1000
SETTLE_SECONDS = 10.0


class Sidecar:
    """The sidecar, asked directly; gateways reach it through `valve`, or `grpc_valve` by gRPC."""

    def __init__(self, url: str, redis: Redis, valve: Valve, grpc_valve: Valve, syslog_port: int) -> None:
        self.url = url
        self.http = httpx2.Client(base_url=url)
        self.redis = redis
        self.valve = valve
        self.grpc_valve = grpc_valve
        self.syslog_port = syslog_port

    def user(self, credit: int = GRANTED) -> str:
        """A new user with that much credit."""
        user_id = f"user-{uuid.uuid4().hex[:12]}"
        if credit:
            self._ok(self.http.post("/credits/add", json={"user_id": user_id, "amount": credit}))
        return user_id

    def limit(self, user_id: str, limits: dict[str, object]) -> None:
        """Sets rate limits of a user."""
        self._ok(self.http.patch(f"/credits/users/{user_id}", json={"rate_limits": limits}))

    def balance(self, user_id: str) -> tuple[Decimal | int, Decimal | int]:
        """What a user has available and reserved."""
        body = self._ok(self.http.get(f"/credits/balance/{user_id}"))
        return body["available"], body["reserved"]

    def wait_for_balance(self, user_id: str, available: int, reserved: int = 0) -> None:
        """Returns when the balance is that; fails when it is not in time."""
        seen: list[object] = []

        def reached() -> bool:
            seen[:] = [self.balance(user_id)]
            return seen == [(available, reserved)]

        try:
            wait_for(reached, "the balance", seconds=SETTLE_SECONDS)
        except AssertionError:
            raise AssertionError(f"{user_id}: {seen[0]}, not {(available, reserved)}") from None

    def settled(self, user_id: str) -> Decimal | int:
        """What a user was charged, as soon as nothing is reserved."""
        wait_for(lambda: self.balance(user_id)[1] == 0, "settlement", seconds=SETTLE_SECONDS)
        return GRANTED - self.balance(user_id)[0]

    def kinds(self, user_id: str) -> list[str]:
        """The kinds of a user's transactions in the outbox, oldest first."""
        entries = entries_of(self.redis.xrange("meter:{p0}:outbox"))
        return [entry.kind for entry in entries if entry.user_id == user_id]

    def pause_redis(self, milliseconds: int) -> None:
        """Redis answers nobody for that long."""
        self.redis.client_pause(milliseconds)

    @staticmethod
    def _ok(answer: httpx2.Response) -> Any:
        assert answer.status_code == 200, answer.text
        return json.loads(answer.content, parse_float=Decimal, parse_int=Decimal)


@contextmanager
def running_sidecar(folder: Path) -> Iterator[Sidecar]:
    """Redis, the sidecar and the valve in front of it."""
    port, grpc_port, syslog_port = free_port(), free_port(), free_port(socket.SOCK_DGRAM)
    with embedded_server(folder / "redis") as server:
        env = {
            "METER_REDIS_URL": server.url,
            "METER_REDIS_UNSAFE": "1",
            "METER_STORE_URL": "none",
            "METER_SYSLOG": f"127.0.0.1:{syslog_port}",
            "METER_REDIS_TIMEOUT_MS": "2000",
            "METER_PORT": str(port),
        }
        if find_spec("grpc") is not None:
            env["METER_EXT_PROC"] = f"127.0.0.1:{grpc_port}"
        redis = Redis.from_url(server.url)
        with (
            running([sys.executable, "-m", "meter", "serve"], folder, port, env, "sidecar"),
            running_valve(port) as valve,
            running_valve(grpc_port) as grpc_valve,
        ):
            sidecar = Sidecar(f"http://127.0.0.1:{port}", redis, valve, grpc_valve, syslog_port)
            wait_for(lambda: sidecar.http.get("/readyz").status_code == 200, "the sidecar is ready")
            yield sidecar
            sidecar.http.close()
        redis.close()
