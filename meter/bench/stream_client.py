"""Reads streams of `meter.bench.stream_upstream`, directly or through the proxy, and says how late their events came.

A process of its own (`python -m meter.bench.stream_client`): reads a load as JSON from standard input and writes what
it saw to standard output. Each of its keep-alive connections asks for one stream after the other, after pauses drawn by
lot: streams in step would wait for each other's turn, which no traffic does.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import cast

import uvloop

from meter.bench.stream_upstream import EVENTS_HEADER
from meter.bench.traffic import user_name

GRACE_SECONDS = 5.0
FAULTS_MAX = 5

_BODY = b'{"model":"small","messages":[{"role":"user","content":"hello"}],"stream":true}'
_SENT_AT = re.compile(rb'"at":(\d+)')
_END = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """One round in one way."""

    port: int
    connections: int
    seconds: float
    users: int
    events: int
    """Of each stream, before the last one."""
    pause_seconds_max: float


@dataclass(slots=True)
class Streams:
    """What was seen, in milliseconds: each stream's time to its first event and to its end, each event's delay."""

    first_ms: list[float] = field(default_factory=list)
    total_ms: list[float] = field(default_factory=list)
    event_ms: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, other: Streams) -> None:
        """Takes in another round."""
        self.first_ms += other.first_ms
        self.total_ms += other.total_ms
        self.event_ms += other.event_ms
        self.faults += other.faults


def run_streams(load: StreamLoad) -> Streams:
    """Runs a load in a child process. Raises `subprocess.SubprocessError` when that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "meter.bench.stream_client"],
        input=json.dumps(asdict(load)),
        stdout=subprocess.PIPE,
        text=True,
        timeout=load.seconds + 60,
        check=True,
    )
    return Streams(**json.loads(done.stdout))


class _Connection(asyncio.Protocol):
    """Asks for a stream, reads it to its end, asks for the next one."""

    def __init__(self, request: bytes, pause: float, seen: Streams, faults: Counter[str], end_ns: int) -> None:
        self._request = request
        self._pause = pause
        self._seen = seen
        self._faults = faults
        self._end_ns = end_ns
        self._transport: asyncio.Transport | None = None
        self._text = b""
        self._asked_ns = 0
        self._events = 0
        self._loop = asyncio.get_running_loop()
        self.ended = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._ask_later()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self._faults[f"connection lost: {exc}"] += 1
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self._events and not self._text and data[9:12] != b"200":
            self._faults[data[9:12].decode("latin-1")] += 1
            self._stop()
            return
        whole, cut, self._text = (self._text + data).rpartition(b"\n\n")
        for sent in _SENT_AT.findall(whole) if cut else ():
            if not self._events:
                self._seen.first_ms.append((now - self._asked_ns) / 1e6)
            self._events += 1
            self._seen.event_ms.append((now - int(sent)) / 1e6)
        if self._text.endswith(_END):
            self._seen.total_ms.append((now - self._asked_ns) / 1e6)
            self._ask_later()

    def _ask_later(self) -> None:
        self._loop.call_later(random.random() * self._pause, self._ask)

    def _ask(self) -> None:
        if self._transport is None:
            return
        self._text, self._events = b"", 0
        self._asked_ns = time.monotonic_ns()
        if self._asked_ns >= self._end_ns:
            self._stop()
        else:
            self._transport.write(self._request)

    def _stop(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        if self._transport is not None:
            self._transport.close()


async def read_streams(load: StreamLoad) -> Streams:
    """Reads streams for a while. Raises OSError when nobody listens."""
    seen, faults, loop = Streams(), Counter[str](), asyncio.get_running_loop()
    end_ns = time.monotonic_ns() + int(load.seconds * 1e9)
    connections = []
    for number in range(load.connections):
        request = _request(load, user_name(number % load.users))
        _, connection = await loop.create_connection(
            lambda text=request: _Connection(text, load.pause_seconds_max, seen, faults, end_ns),  # type: ignore[misc]
            "127.0.0.1",
            load.port,
        )
        connections.append(connection)
    await asyncio.wait([connection.ended for connection in connections], timeout=load.seconds + GRACE_SECONDS)
    hanging = sum(not connection.ended.done() for connection in connections)
    if hanging:
        faults["no end of a stream"] += hanging
    seen.faults = [f"{count} x {fault}" for fault, count in faults.most_common(FAULTS_MAX)]
    return seen


def _request(load: StreamLoad, user: str) -> bytes:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{load.port}\r\nX-User-Id: {user}\r\n"
        f"{EVENTS_HEADER.decode()}: {load.events}\r\n"
        f"Accept: text/event-stream\r\nContent-Type: application/json\r\nContent-Length: {len(_BODY)}\r\n\r\n"
    )
    return head.encode() + _BODY


def main() -> None:
    """Load in, streams out."""
    seen = uvloop.run(read_streams(StreamLoad(**json.loads(sys.stdin.read()))))
    sys.stdout.write(json.dumps(asdict(seen)))


if __name__ == "__main__":
    main()
