"""Kinds of connection that redis-py has not: one that script calls travel on alone, and one that Sentinels lead to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import hiredis
from redis import exceptions

from meter.engine.script_wire import ScriptWire
from meter.redis_urls import Address

NO_MASTER = "is no master any more"


class NotApplied(exceptions.ResponseError):
    """A call that reached nobody who could have done it."""


class ScriptConnection(Protocol):
    """What script calls need of a connection: `ScriptWire` without what it is made of."""

    @property
    def is_open(self) -> bool:
        """Whether a call may be tried."""

    def call(self, request: bytes) -> Awaitable[object]:
        """The reply to a packed command."""

    def close(self) -> None:
        """Ends it at once."""


class AsItIs:
    """A connection of redis-py's that has no socket to take over: fakeredis'."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.is_open = True

    async def call(self, request: bytes) -> object:
        """Redis-py's own way to send what is packed, and to wait."""
        await self._connection.send_packed_command(request)
        return await self._connection.read_response()

    def close(self) -> None:
        """Forgets it."""
        self.is_open = False


def redirection_of(error: exceptions.ResponseError) -> tuple[str, str]:
    """("MOVED" or "ASK", "866 10.0.0.1:6379") of a key that another node has, else ("", ""). From version 6 on redis-py
    has classes for them and cuts the first word off.
    """
    text = str(error)
    if isinstance(error, exceptions.AskError):
        return "MOVED" if isinstance(error, exceptions.MovedError) else "ASK", text.removeprefix("MOVED ")
    word, _, rest = text.partition(" ")
    return (word, rest) if word in ("MOVED", "ASK") else ("", "")


def made_for_scripts(connection: type[Any]) -> type[Any]:
    """The kind of connection that can be taken over, once it is made and signed in, for script calls alone."""

    class MadeForScripts(connection):  # type: ignore[misc]
        def wire(self, patience_seconds: float) -> ScriptWire:
            """The connection as a wire; this object is to be used no longer, and lives as long as the wire does."""
            reader = hiredis.Reader(protocolError=exceptions.InvalidResponse, replyError=self._parser.parse_error)
            transport: asyncio.Transport = self._writer.transport
            return ScriptWire(transport, reader, patience_seconds, self._let_go)

        def _let_go(self) -> None:
            """Else it warns that nobody closed it."""
            self._reader: Any = None
            self._writer: Any = None

    return MadeForScripts


def led_to_master(connection: type[Any], master: Callable[[], Awaitable[Address]]) -> type[Any]:
    """The kind of connection that asks, each time it is made, where the master is, and then whether it is one."""

    class LedToMaster(connection):  # type: ignore[misc]
        async def connect(self) -> None:
            if self.is_connected:
                return
            self.host, self.port = await master()
            await super().connect()
            await self.send_command("ROLE")
            role, *_ = await self.read_response()
            if role != b"master":
                await self.disconnect(nowait=True)
                raise exceptions.ConnectionError(f"{self.host}:{self.port} {NO_MASTER}")

    return LedToMaster
