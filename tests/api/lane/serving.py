"""Sidecars on real sockets, in a thread each, and clients that speak byte by byte."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from meter.api.lane.protocol import HotProtocol
from meter.app import create_app
from meter.engine.programs import Program
from meter.engine.redis import RedisGateway
from meter.testing import fake_redis, fake_settings
from tests.api.lane.answers import Answer, answers_in, request

DEADLINE_SECONDS = 20.0

_T = TypeVar("_T")


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Returns when the condition is true; fails when it is not in time."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.002)


class GatedRedis(RedisGateway):
    """A fakeredis that answers no script while its gate is shut."""

    def __init__(self) -> None:
        super().__init__(fake_redis()._client)
        self.open = True
        self.waiting = 0

    async def run(self, program: Program, keys: Sequence[str], arguments: Sequence[str | int]) -> str:
        self.waiting += 1
        while not self.open:
            await asyncio.sleep(0.002)
        self.waiting -= 1
        return await super().run(program, keys, arguments)


class Client:
    """One connection. `receive` reads until a condition on what came so far, or the end."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.text = b""
        self.ended = False

    def send(self, *pieces: bytes) -> Client:
        """Sends each piece on its own."""
        for piece in pieces:
            self.socket.sendall(piece)
        return self

    def answers(self, number: int) -> list[Answer]:
        """Reads until there are that many whole answers, and no more than that."""
        begun = b"HTTP/1.1 "
        self._read(lambda: self.ended or (self.text.count(begun) >= number and len(whole(self.text)) >= number))
        found = whole(self.text)
        assert len(found) == number, found
        return found

    def to_the_end(self) -> list[Answer]:
        """Reads until the server closes the connection."""
        self._read(lambda: self.ended)
        return whole(self.text)

    def reset(self) -> None:
        """Goes away with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _read(self, done: Callable[[], object]) -> None:
        while not done():
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            self.text += data
            self.ended = not data


def whole(text: bytes) -> list[Answer]:
    """The answers that have come as a whole."""
    return [a for a in answers_in(text) if a.status == 100 or len(a.body) == int(a.header("content-length") or -1)]


class Sidecar:
    """A server in a thread. User `rich` has a million credits."""

    def __init__(self, http: Any, uds: Path | None = None, **options: Any) -> None:
        self.redis = GatedRedis()
        self.app = create_app(fake_settings(body_max_bytes=65536), self.redis)
        self.hot = http is HotProtocol
        self.uds = uds
        arguments = {"uds": str(uds)} if uds else {"host": "127.0.0.1", "port": 0}
        self.server = uvicorn.Server(
            uvicorn.Config(
                self.app,
                http=http,
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                timeout_graceful_shutdown=10,
                **{**arguments, **options},
            )
        )
        self.server.capture_signals = nullcontext  # type: ignore[assignment, method-assign]
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self.thread.start()
        wait_for(lambda: self.server.started or not self.thread.is_alive(), "the sidecar serves")
        assert self.server.started
        # Connections inherit it: few answers fit in the kernel, so that a client that does not read is soon noticed.
        self.server.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        with self.client() as client:
            client.send(request("POST", "/credits/add", body={"user_id": "rich", "amount": 1_000_000}))
            assert client.answers(1)[0].status == 200

    def stop(self) -> None:
        """Asks for a graceful end and waits for it."""
        self.server.should_exit = True
        self.thread.join(DEADLINE_SECONDS)
        assert not self.thread.is_alive()

    @contextmanager
    def client(self, *, receive_bytes: int | None = None) -> Iterator[Client]:
        """A new connection."""
        sock = socket.socket(socket.AF_UNIX if self.uds else socket.AF_INET, socket.SOCK_STREAM)
        with sock:
            if receive_bytes is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            sock.settimeout(DEADLINE_SECONDS)
            sock.connect(str(self.uds) if self.uds else self.server.servers[0].sockets[0].getsockname())
            yield Client(sock)

    def ask(self, text: bytes) -> Answer:
        """The answer to one request on a connection of its own."""
        with self.client() as client:
            return client.send(text).answers(1)[0]

    def available(self, user_id: str = "rich") -> float:
        """What a user has."""
        return float(self.ask(request("GET", f"/credits/balance/{user_id}")).json["available"])

    def count(self, status: int) -> int:
        """How many answers of a status the metrics tell of."""
        text = self.ask(request("GET", "/metrics")).body.decode()
        line = f'meter_http_responses_total{{status="{status}"}} '
        return next((int(float(found[len(line) :])) for found in text.splitlines() if found.startswith(line)), 0)

    @property
    def connections(self) -> list[Any]:
        """The protocols of the open connections."""
        return list(self.server.server_state.connections)

    def no_connections(self) -> None:
        """Returns when nobody is connected any more."""
        wait_for(lambda: not self.server.server_state.connections, "every connection is forgotten")

    def _run(self) -> None:
        self.server.run()
