"""Our own load generator: keep-alive connections on raw sockets, one request at a time each.

A process of its own (`python -m meter.bench.generator`): reads a load as a line of JSON from standard input and writes
a sample to standard output; with `--until-closed` it also ends when standard input does. With a rate, the latency of a
request that had to wait for the answer before it counts from when it was due, not from when it could be sent.

wrk costs a third of the CPU and takes the loads that are as fast as answers come; this one holds a rate, and stands in
where there is no wrk.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import cast

import uvloop

from meter.bench.samples import PERCENTILES, Sample, percentile
from meter.bench.traffic import Load, Template, user_name

FAULTS_MAX = 5
GRACE_SECONDS = 5.0
PREPARED_MAX = 2000
"""Requests made before the clock starts, per template without an id; drawn from by lot afterwards."""

UNTIL_CLOSED = "--until-closed"

Requests = Iterator[bytes]


def run_generator(load: Load) -> Sample:
    """Runs a load in a child process. Raises `subprocess.SubprocessError` when that fails."""
    done = subprocess.run(
        [sys.executable, "-m", "meter.bench.generator"],
        input=load.to_json(),
        stdout=subprocess.PIPE,
        text=True,
        timeout=load.seconds + 60,
        check=True,
    )
    return _sample_of(done.stdout)


class RunningGenerator:
    """A load that is sent until `stop`, or for as long as it says."""

    def __init__(self, load: Load) -> None:
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "meter.bench.generator", UNTIL_CLOSED],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(load.to_json() + "\n")
        self._process.stdin.flush()

    def stop(self) -> Sample:
        """Ends the load after the answers that are on their way. Raises `subprocess.SubprocessError`."""
        text, _ = self._process.communicate(timeout=GRACE_SECONDS * 4)
        if self._process.returncode:
            raise subprocess.CalledProcessError(self._process.returncode, self._process.args)
        return _sample_of(text)

    def kill(self) -> None:
        """Ends it without an answer; nothing after `stop`."""
        self._process.kill()
        self._process.wait()


def _sample_of(text: str) -> Sample:
    members = json.loads(text)
    return Sample(**{**members, "latency_ms": tuple(members["latency_ms"]), "faults": tuple(members["faults"])})


class _Watch:
    """What all connections saw, and when they end."""

    def __init__(self, end: float) -> None:
        self.end = end
        self.latencies: list[float] = []
        self.faults: Counter[str] = Counter()
        self.answered = 0

    def stop_when_closed(self) -> None:
        """To be called when there is something to read from standard input, if only its end."""
        if not os.read(sys.stdin.fileno(), 1):
            self.end = time.perf_counter()
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())


class _Connection(asyncio.Protocol):
    """Sends a request, reads its answer, sends the next one."""

    def __init__(self, requests: Requests, watch: _Watch, pace: float, first: float) -> None:
        self._requests = requests
        self._watch = watch
        self._pace = pace
        self._due = first
        self._text = b""
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self.ended = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self._watch.faults[f"connection lost: {exc}"] += 1
            self.ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._text = self._text + data if self._text else data
        head_end = self._text.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._text[:head_end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self._text) < head_end + 4 + length:
            return
        now = time.perf_counter()
        self._watch.latencies.append(now - self._due)
        self._watch.answered += 1
        if head[9:10] != b"2":
            self._watch.faults[self._text[9:12].decode() + " " + self._text[head_end + 4 :][:120].decode()] += 1
        self._text = b""
        self._next()

    def _next(self) -> None:
        now = time.perf_counter()
        if self._pace:
            self._due += self._pace
            if self._due < self._watch.end and self._due > now:
                self._loop.call_later(self._due - now, self._send_on_time)
                return
        else:
            self._due = now
        self._send()

    def _send_on_time(self) -> None:
        """The loop's timer is up to a millisecond late: that is ours, and no latency of who answers."""
        self._due = max(self._due, time.perf_counter())
        self._send()

    def _send(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if max(self._due, time.perf_counter()) >= self._watch.end:
            if not self.ended.done():
                self.ended.set_result(None)
            self._transport.close()
            return
        self._transport.write(next(self._requests))


def requests_of(load: Load, connection: int) -> Requests:
    """What one connection sends, without end; pairs one after the other."""
    chance = random.Random(f"{load.run}-{connection}")
    makers = [_maker(template, load, chance) for template in load.templates]
    number = 0
    while True:
        number += 1
        for make in makers:
            yield make(f"{load.run}-{connection}-{number}")


def _maker(template: Template, load: Load, chance: random.Random) -> Callable[[str], bytes]:
    if "%R" in template.path + template.body:
        return lambda name: _text_of(template, load, chance, name)
    count = max(1, PREPARED_MAX // load.connections)
    prepared = [_text_of(template, load, chance, "") for _ in range(count)]
    return lambda _: prepared[int(chance.random() * count)]


def _text_of(template: Template, load: Load, chance: random.Random, name: str) -> bytes:
    def filled(text: str) -> str:
        while "%U" in text:
            text = text.replace("%U", user_name(chance.randrange(load.users)), 1)
        return text.replace("%R", name)

    body = filled(template.body).encode()
    lines = [f"{template.method} {filled(template.path)} HTTP/1.1", f"Host: 127.0.0.1:{load.port}"]
    lines += [f"{header}: {filled(value)}" for header, value in template.headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def generate(load: Load, *, until_closed: bool = False) -> Sample:
    """Sends the load and answers what was seen. Raises OSError when nobody listens."""
    started = time.perf_counter()
    watch, loop = _Watch(started + load.seconds), asyncio.get_running_loop()
    if until_closed:
        loop.add_reader(sys.stdin.fileno(), watch.stop_when_closed)
    pace = load.connections / load.rate if load.rate else 0.0
    connections = []
    for number in range(load.connections):
        first = started - pace + pace * number / load.connections
        _, connection = await loop.create_connection(
            lambda n=number, f=first: _Connection(requests_of(load, n), watch, pace, f),  # type: ignore[misc]
            "127.0.0.1",
            load.port,
        )
        connections.append(connection)
    await asyncio.wait([connection.ended for connection in connections], timeout=load.seconds + GRACE_SECONDS)
    hanging = sum(not connection.ended.done() for connection in connections)
    if hanging:
        watch.faults["no answer"] += hanging
    watch.latencies.sort()
    return Sample(
        requests=watch.answered,
        errors=watch.faults.total(),
        seconds=time.perf_counter() - started,
        latency_ms=tuple(percentile(watch.latencies, percent) * 1000 for percent in PERCENTILES),
        faults=tuple(f"{count} x {fault}" for fault, count in watch.faults.most_common(FAULTS_MAX)),
    )


def main() -> None:
    """Load in, sample out."""
    load = Load.from_json(sys.stdin.readline())
    sample = uvloop.run(generate(load, until_closed=UNTIL_CLOSED in sys.argv))
    sys.stdout.write(json.dumps(asdict(sample)))


if __name__ == "__main__":
    main()
