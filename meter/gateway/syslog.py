"""A syslog listener: one datagram, one request, as nginx and HAProxy send their access logs.

The JSON begins at the first brace; whatever frames it (RFC 3164 or 5424) is skipped. A datagram is nobody's to repeat,
so what Redis cannot decide now is kept, within bounds, and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from logging import getLogger
from pathlib import Path

from meter.engine import Engine
from meter.errors import MeterError, Unavailable
from meter.gateway.intake import Intake, Outcome, entries_of
from meter.gateway.sources import SOURCES
from meter.operation import Operation

WAITING_MAX = 10_000
"""Settlements that wait for Redis; beyond that the oldest is dropped, and its hold ends by itself."""
RETRY_PAUSE_SECONDS = 0.5
RETRIES_PER_TURN = 200

_log = getLogger("meter.gateway")


class SyslogListener(asyncio.DatagramProtocol):
    """`async with` it: listens on `127.0.0.1:9514` or `unix:/path`."""

    def __init__(self, address: str, engine: Engine, intake: Intake) -> None:
        self._address = address
        self._engine = engine
        self._intake = intake
        self._waiting: deque[Operation] = deque(maxlen=WAITING_MAX)
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self.outcome = Outcome()

    async def __aenter__(self) -> SyslogListener:
        loop = asyncio.get_running_loop()
        path = self._path
        if path is not None:
            path.unlink(missing_ok=True)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            listening.setblocking(False)
            listening.bind(str(path))
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=listening)
        else:
            host, _, port = self._address.rpartition(":")
            self._transport, _ = await loop.create_datagram_endpoint(
                lambda: self, local_addr=(host.strip("[]"), int(port))
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    @property
    def _path(self) -> Path | None:
        kind, _, path = self._address.partition(":")
        return Path(path) if kind == "unix" else None

    def datagram_received(self, data: bytes, _: object) -> None:
        """One access log entry."""
        begin = data.find(b"{")
        entry = entries_of(data[begin:].rstrip(b"\0\r\n"))[0] if begin >= 0 else None
        one = self._intake.operation(entry, SOURCES["meter"], self.outcome)
        if one is not None:
            self._settle(one)

    def _settle(self, one: Operation) -> None:
        def heard(line: str | MeterError) -> None:
            if isinstance(line, Unavailable):
                self._retry_later(one)
            elif isinstance(line, MeterError):
                self.outcome.failed += 1
                _log.error("reservation %s was not settled: %s", one[4], line)
            else:
                failed = self.outcome.failed
                self.outcome.count(line)
                if self.outcome.failed > failed:
                    _log.warning("reservation %s was not settled: %s", one[4], line[2:])

        try:
            self._engine.submit_for_reservation(one[4], one, heard)
        except Unavailable:
            self._retry_later(one)

    def _retry_later(self, one: Operation) -> None:
        if len(self._waiting) == WAITING_MAX:
            self.outcome.failed += 1
        self._waiting.append(one)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(RETRY_PAUSE_SECONDS, self._retry)

    def _retry(self) -> None:
        self._timer = None
        for _ in range(min(RETRIES_PER_TURN, len(self._waiting))):
            self._settle(self._waiting.popleft())
        if self._waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(RETRY_PAUSE_SECONDS, self._retry)
