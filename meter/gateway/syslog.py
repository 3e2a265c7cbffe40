"""A syslog listener: one datagram, one request, as nginx and HAProxy send their access logs.

The JSON begins at the first brace; whatever frames it (RFC 3164 or 5424) is skipped. A datagram is nobody's to repeat,
so what Redis cannot decide now is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

from meter.gateway.counts import GatewayCounts
from meter.gateway.entries import entry_of
from meter.gateway.logs import AccessLogs, Delivered
from meter.gateway.settlement import GatewaySettlements
from meter.gateway.sources import SOURCES

RECEIVE_BYTES = 4 * 2**20
"""Room for datagrams that come while we are busy, as far as net.core.rmem_max lets us have it."""
LOOK_SECONDS = 5.0
"""Between two looks at how many datagrams the kernel had no room for."""
_TABLES = (Path("/proc/net/udp"), Path("/proc/net/udp6"))


class SyslogListener(asyncio.DatagramProtocol):
    """`async with` it: listens on `127.0.0.1:9514` or `unix:/path`."""

    def __init__(self, address: str, logs: AccessLogs, settlements: GatewaySettlements, counts: GatewayCounts) -> None:
        kind, _, path = address.partition(":")
        self._address = address
        self._path = Path(path) if kind == "unix" else None
        self._logs = logs
        self._settlements = settlements
        self._counts = counts
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> SyslogListener:
        loop = asyncio.get_running_loop()
        if self._path is not None:
            self._path.unlink(missing_ok=True)  # of a process that was killed
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            listening.setblocking(False)
            listening.bind(str(self._path))
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=listening)
        else:
            host, _, port = self._address.rpartition(":")
            address = (host.strip("[]"), int(port))
            # Several processes (`meter serve --workers`) share the port.
            self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=address, reuse_port=True)
            self._look(self._transport.get_extra_info("socket").fileno())
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def datagram_received(self, data: bytes, _: object) -> None:
        """One access log entry."""
        _, brace, text = data.partition(b"{")
        entry = entry_of((brace + text).rstrip(b"\0\r\n").decode("utf-8", "replace"))
        settlement = self._logs.settlement(entry, SOURCES["meter"], "syslog", Delivered())
        if settlement is not None:
            self._settlements.settle(settlement, "syslog")

    def _look(self, descriptor: int) -> None:
        """A sender of UDP is not told what was dropped; the kernel counts it."""
        dropped = dropped_by_kernel(os.fstat(descriptor).st_ino)
        if dropped:
            self._counts.dropped["datagram",] = dropped
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look, descriptor)


def dropped_by_kernel(inode: int) -> int:
    """How many datagrams a UDP socket has lost for want of room; 0 where the kernel does not say."""
    for table in _TABLES:
        with contextlib.suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                columns = line.split()
                if columns[9] == str(inode):
                    return int(columns[-1])
    return 0
