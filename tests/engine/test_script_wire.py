"""The connection of script calls: a reply belongs to its call, whatever comes in between, or the connection ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf

import pytest

from meter.engine.connect import connect
from meter.engine.programs import Program, apply_program
from meter.engine.redis import RedisGateway
from meter.errors import RedisUnavailable, ScriptError

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PROGRAM = Program("apply", "return 1", "0" * 40, ((1, "apply.lua"),))
PATIENCE_SECONDS = 0.2


class Toy:
    """A server that signs everybody in, and answers the n-th script call with the n-th reply: bytes, or pieces. Before
    an empty piece it waits for the gate.
    """

    def __init__(self, *replies: bytes | list[bytes]) -> None:
        self.replies = list(replies)
        self.gate = asyncio.Event()
        self.calls: list[bytes] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                parts = await _command(reader)
                if parts[0] not in (b"EVALSHA", b"EVAL"):
                    writer.write(b"+OK\r\n")
                    continue
                self.calls.append(parts[0])
                reply = self.replies.pop(0)
                for piece in [reply] if isinstance(reply, bytes) else reply:
                    if not piece:
                        await self.gate.wait()
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.005)
                if reply == b"$0\r\n":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    parts = []
    for _ in range(int((await reader.readuntil(b"\r\n"))[1:])):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        parts.append((await reader.readexactly(size + 2))[:-2])
    return parts


@asynccontextmanager
async def gateway_to(toy: Toy) -> AsyncIterator[RedisGateway]:
    """A gateway to such a server."""
    server = await asyncio.start_server(toy.serve, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    gateway = connect(url, timeout_seconds=PATIENCE_SECONDS, connections_max=4)
    try:
        yield gateway
    finally:
        await gateway.close()
        server.close()


async def test_a_reply_in_pieces_is_one_reply() -> None:
    toy = Toy([b"$1", b"1\r\nhal", b"lo wor", b"ld\r", b"\n"], b"$2\r\nok\r\n", b":7\r\n")
    async with gateway_to(toy) as gateway:
        assert [await gateway.run(PROGRAM, ["k"], [n]) for n in range(3)] == ["hallo world", "ok", "7"]
        assert gateway.patience_seconds == PATIENCE_SECONDS
    assert toy.connections == 1


async def test_an_error_is_the_answer_to_its_call_and_the_connection_goes_on() -> None:
    toy = Toy(b"-ERR user_script:1: boom\r\n", b"-OOM command not allowed\r\n", b"-NOSCRIPT x\r\n", b"$1\r\na\r\n")
    async with gateway_to(toy) as gateway:
        with pytest.raises(ScriptError, match="boom"):
            await gateway.run(PROGRAM, ["k"], [])
        with pytest.raises(RedisUnavailable):
            await gateway.run(PROGRAM, ["k"], [])
        assert await gateway.run(PROGRAM, ["k"], []) == "a"
    assert (toy.calls, toy.connections) == ([b"EVALSHA"] * 3 + [b"EVAL"], 1)


async def test_x25_a_server_that_became_a_replica_is_not_asked_again_on_its_connection() -> None:
    """Its master is elsewhere, and only a new connection leads there."""
    toy = Toy(b"-READONLY You can\r\n", b"$1\r\na\r\n")
    async with gateway_to(toy) as gateway:
        with pytest.raises(RedisUnavailable):
            await gateway.run(PROGRAM, ["k"], [])
        assert await gateway.run(PROGRAM, ["k"], []) == "a"
    assert toy.connections == 2


@pytest.mark.parametrize(
    "reply",
    [b"$0\r\n", [b"$5\r\nhal"], b"this is no Redis\r\n", b"$1\r\na\r\n$1\r\nb\r\n"],
    ids=["closed", "silent in the middle", "no protocol", "one too many"],
)
async def test_what_goes_wrong_ends_the_connection_and_not_the_next_call(reply: bytes | list[bytes]) -> None:
    """X4: the reply to one call is never taken for that to another."""
    toy = Toy(reply, b"$2\r\nok\r\n")
    async with gateway_to(toy) as gateway:
        try:
            assert await gateway.run(PROGRAM, ["k"], []) == "a"
            while gateway.patience_seconds < inf:  # what nobody asked for comes
                await asyncio.sleep(0.001)
            with pytest.raises(RedisUnavailable):  # whoever answers now may be another
                await gateway.run(PROGRAM, ["k"], [])
        except RedisUnavailable:
            assert gateway.patience_seconds == inf
        assert await gateway.run(PROGRAM, ["k"], []) == "ok"
    assert toy.connections == 2


async def test_a_caller_that_is_cancelled_takes_the_late_reply_with_it() -> None:
    toy = Toy([b"$4\r\nla", b"", b"te\r\n"], b"$2\r\nok\r\n")
    async with gateway_to(toy) as gateway:
        call = asyncio.create_task(gateway.run(PROGRAM, ["k"], []))
        while not toy.calls:
            await asyncio.sleep(0.001)
        call.cancel()
        await asyncio.wait([call])
        toy.gate.set()
        assert await gateway.run(PROGRAM, ["k"], []) == "ok"


async def test_calls_at_once_have_connections_of_their_own() -> None:
    toy = Toy(*[[b"$2\r\n", b"ok\r\n"]] * 20)
    async with gateway_to(toy) as gateway:
        for _ in range(5):
            assert await asyncio.gather(*(gateway.run(PROGRAM, ["k"], []) for _ in range(4))) == ["ok"] * 4
    assert toy.connections == 4


@pytest.mark.filterwarnings("error::ResourceWarning")
async def test_a_real_server_ends_connections_and_is_asked_on_new_ones(redis_url: str) -> None:
    program = apply_program()
    gateway = connect(redis_url, timeout_seconds=5.0, connections_max=4)
    echo = Program("echo", "return ARGV[1] .. #KEYS", "f" * 40, ((1, "echo.lua"),))

    assert await gateway.run(echo, ["a", "b"], ["x" * 100_000]) == "x" * 100_000 + "2"
    await gateway._client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(RedisUnavailable):  # told once, so that a sender looks whether its history is still there
        while True:
            await gateway.run(echo, ["a"], [7])
    assert await gateway.run(echo, ["a"], [7]) == "71"
    with pytest.raises(ScriptError):
        await gateway.run(program, ["a"], [])
    await gateway.close()
