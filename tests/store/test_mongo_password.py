"""C17 on MongoDB, whose driver signs in with what it had at first: against a small server that wants a password."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import bson
import pytest

from meter.errors import StoreDenied
from meter.store.connect import open_store

_OP_MSG, _OP_QUERY = 2013, 2004


class Guarded:
    """Speaks enough of MongoDB's protocol to be signed in to by PLAIN and to be pinged."""

    def __init__(self) -> None:
        self.password = "first"
        self.signed_in: list[str] = []
        self._connections: dict[asyncio.StreamWriter, asyncio.Event] = {}

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        ended = self._connections[writer] = asyncio.Event()
        try:
            while True:
                length, number, _, code = struct.unpack("<iiii", await reader.readexactly(16))
                body = await reader.readexactly(length - 16)
                start = body.index(b"\0", 4) + 9 if code == _OP_QUERY else 5
                answer = bson.encode(self._answer(bson.decode(body[start : start + _size(body, start)])))
                if code == _OP_QUERY:
                    reply, kind = struct.pack("<iqii", 8, 0, 0, 1) + answer, 1
                else:
                    reply, kind = struct.pack("<iB", 0, 0) + answer, _OP_MSG
                writer.write(struct.pack("<iiii", len(reply) + 16, 1, number, kind) + reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
            ended.set()

    async def closed(self) -> None:
        """Returns when nobody is connected any more."""
        for writer, ended in self._connections.items():
            writer.close()
            await ended.wait()

    def _answer(self, command: dict[str, Any]) -> dict[str, Any]:
        if "saslStart" in command:
            password = bytes(command["payload"]).split(b"\0")[2].decode()
            if password != self.password:
                return {"ok": 0, "code": 18, "codeName": "AuthenticationFailed", "errmsg": "Authentication failed."}
            self.signed_in.append(password)
            return {"ok": 1, "conversationId": 1, "done": True, "payload": b""}
        hello = {"ismaster": True, "isWritablePrimary": True, "minWireVersion": 0, "maxWireVersion": 21}
        return {"ok": 1, **hello} if "hello" in command or "ismaster" in command else {"ok": 1}


def _size(body: bytes, start: int) -> int:
    return int(struct.unpack_from("<i", body, start)[0])


@asynccontextmanager
async def guarded() -> AsyncIterator[tuple[Guarded, str]]:
    """The server, and its URL with `{password}` in it."""
    door = Guarded()
    async with await asyncio.start_server(door.connected, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield door, f"mongodb://m:{{password}}@127.0.0.1:{port}/kept?authMechanism=PLAIN&directConnection=true"
        await door.closed()


async def test_c17_mongodb_signs_in_with_the_password_of_now() -> None:
    async with guarded() as (door, url):
        now = [url.format(password="first")]
        store = open_store(now[0], timeout_seconds=5, read_again=lambda: now[0])
        await store.ping()
        door.password = "second"
        now[0] = url.format(password="second")
        await asyncio.gather(*(store.ping() for _ in range(4)))  # on new connections, and none of them is told
        assert door.signed_in[0] == "first" and set(door.signed_in[1:]) == {"second"}
        await store.close()


async def test_c17_mongodb_keeps_what_it_has_where_the_file_says_nothing_new() -> None:
    async with guarded() as (door, url):
        now = [url.format(password="first")]
        store = open_store(now[0], timeout_seconds=5, read_again=lambda: now[0])
        await store.ping()
        now[0] = "mongodb://[that/no one can read"
        await store.ping()  # an open connection stays
        door.password = "second"
        with pytest.raises(StoreDenied, match="refuses it \\(18\\)"):
            await asyncio.gather(*(store.ping() for _ in range(4)))
        now[0] = url.format(password="second")
        await store.ping()
        await store.close()
