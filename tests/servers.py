"""The two servers that the same tests run on: a fresh fakeredis, and a real one that is emptied for each test."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fakeredis
from redis import Redis

from meter.dev.redis_server import EmbeddedServer
from meter.engine.connect import connect
from meter.engine.redis import RedisGateway

BINARY_VARIABLE = "METER_TEST_REDIS_BINARY"


@dataclass(frozen=True)
class Server:
    """A server without data. `client` is synchronous and answers bytes; `url` is None for fakeredis."""

    name: str
    client: Any
    url: str | None
    fake: Any = None

    def gateway(self, *, timeout_seconds: float = 5.0, connections_max: int = 10) -> RedisGateway:
        """A new gateway; its user closes it."""
        if self.url is None:
            return RedisGateway(fakeredis.FakeAsyncRedis(server=self.fake))
        return connect(self.url, timeout_seconds=timeout_seconds, connections_max=connections_max)


def fake_server() -> Server:
    """A server of its own for each call: fakeredis keeps the globals that a faulty script leaves behind."""
    fake = fakeredis.FakeServer()
    return Server("fakeredis", fakeredis.FakeRedis(server=fake), None, fake)


def real_server(url: str) -> Server:
    """The server at `url`, emptied; the scripts that it knows stay known."""
    client = Redis.from_url(url)
    client.flushall()
    return Server("redis", client, url)


def embedded_server(folder: Path, *, persist: bool = False, port: int = 0) -> EmbeddedServer:
    """A real server, not started. METER_TEST_REDIS_BINARY names another one than the first found."""
    named = os.environ.get(BINARY_VARIABLE)
    return EmbeddedServer(data_dir=folder, persist=persist, port=port, binary=Path(named) if named else None)
