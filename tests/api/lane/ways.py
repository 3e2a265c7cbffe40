"""Both ways in, fed byte strings in one event loop and without sockets, so that what each answers is no matter of time.

After each piece the loop runs until nothing is left to do: then all that could be answered has been.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from uvicorn.config import Config
from uvicorn.server import ServerState

from meter.api.lane.protocol import HotProtocol
from meter.http.bounded import BoundedProtocol
from meter.testing import fake_app
from tests.api.lane.answers import Answer, answers_in, request

T0 = "2030-01-01T00:00:00.000Z"
BODY_MAX = 4096
PATIENT_MS = 10_000
"""A machine that is busy for 150 ms must not make one way answer a gateway that Redis is slow."""


class Pipe(asyncio.Transport):
    """A transport to a protocol. What is written is kept; after `close` nothing is, as with a real one."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__({"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 8000)})
        self.written = bytearray()
        self.closed = False
        self.protocol = protocol
        self._held: list[bytes] | None = None
        protocol.connection_made(self)

    def feed(self, data: bytes) -> None:
        """Data from the client; held back while the protocol wants none."""
        if self._held is not None:
            self._held.append(data)
        elif not self.closed:
            self.protocol.data_received(data)

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += data

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert self._held is None, "paused twice"
        self._held = []

    def resume_reading(self) -> None:
        assert self._held is not None, "resumed twice"
        asyncio.get_running_loop().call_soon(self._release)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self.protocol = protocol

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for data in held:
            self.feed(data)


@dataclass(frozen=True)
class Outcome:
    """What became of a connection."""

    answers: list[Answer]
    closed: bool
    counted: Mapping[int, int]
    """Answers by status, as `/metrics` would tell them."""

    @property
    def statuses(self) -> list[int]:
        """The statuses in order."""
        return [answer.status for answer in self.answers]


class Way:
    """One way in to an application of its own."""

    def __init__(self, app: Starlette, http: Any) -> None:
        self.app = app
        self.hot = http is HotProtocol
        self.config = Config(app, http=http, lifespan="off", access_log=False, proxy_headers=False, log_config=None)
        self.config.load()
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"now"), (b"server", b"uvicorn")]

    def connect(self) -> Pipe:
        """A new connection."""
        return Pipe(self.config.http_protocol_class(config=self.config, server_state=self.state, app_state={}))  # type: ignore[call-arg]

    async def talk(self, pieces: Sequence[bytes]) -> Outcome:
        """Sends pieces on a new connection, each after the one before was dealt with; then the client goes away."""
        before = dict(self.app.state.hot_lane.responses)
        pipe = self.connect()
        assert getattr(pipe.protocol, "_usable", False) is self.hot
        for piece in pieces:
            pipe.feed(piece)
            await settled()
        answers, closed = answers_in(bytes(pipe.written)), pipe.closed
        pipe.close()
        await settled()
        assert not self.state.connections
        after = self.app.state.hot_lane.responses
        return Outcome(answers, closed, {status: after[status] - before.get(status, 0) for status in after})


class Ways:
    """The hot lane and uvicorn's own implementation, with equal data at one frozen time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, **settings: Any) -> None:
        self.loop = loop
        common = {"body_max_bytes": BODY_MAX, "lanes": 1, "gateway_timeout_ms": PATIENT_MS, **settings}
        self.lane = Way(fake_app(**common), HotProtocol)
        self.plain = Way(fake_app(**common), BoundedProtocol)
        self._lifespans = [way.app.router.lifespan_context(way.app) for way in (self.lane, self.plain)]

    def start(self) -> None:
        """Opens both and gives user `rich` many credits."""
        for lifespan in self._lifespans:
            self.loop.run_until_complete(lifespan.__aenter__())
        self.same([request("PUT", "/test-clock", body={"now": T0})])
        self.same([request("POST", "/credits/add", body={"user_id": "rich", "amount": 100_000, "grant_id": "g"})])

    def stop(self) -> None:
        """Closes both."""
        for lifespan in self._lifespans:
            self.loop.run_until_complete(lifespan.__aexit__(None, None, None))

    def both(self, pieces: Sequence[bytes]) -> tuple[Outcome, Outcome]:
        """What the lane and the plain way make of the same pieces."""
        return (
            self.loop.run_until_complete(self.lane.talk(pieces)),
            self.loop.run_until_complete(self.plain.talk(pieces)),
        )

    def same(self, pieces: Sequence[bytes]) -> Outcome:
        """The outcome, which must be the same on both, in what was counted too."""
        lane, plain = self.both(pieces)
        assert [answer.lasting for answer in lane.answers] == [answer.lasting for answer in plain.answers]
        assert _nonzero(lane.counted) == _nonzero(plain.counted)
        assert lane.closed == plain.closed
        return lane


def _nonzero(counts: Mapping[int, int]) -> dict[int, int]:
    return {status: count for status, count in counts.items() if count}


async def settled() -> None:
    """Returns when the loop has nothing ready but us, twice in a row."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    quiet = 0
    while quiet < 2:
        await asyncio.sleep(0)
        quiet = 0 if ready else quiet + 1
