"""The one gateway in front of redis-py: typed, with our own time limits, and no retry that we did not ask for.

redis-py's types differ between 5.3.1 and 8.x and say `Any` in places; nothing outside this module sees that.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import hiredis
from redis import exceptions
from redis.asyncio import SSLConnection

from meter.engine.connections import AsItIs, NotApplied, ScriptConnection, redirection_of
from meter.engine.history import NO_STORE
from meter.engine.programs import Program
from meter.engine.redis_faults import REDIS, fault_of, is_of_rights
from meter.engine.rights import Who, calls, reaching
from meter.engine.speaks import check_certificate, check_scheme
from meter.errors import MeterError, RedisDenied, RedisUnavailable, ScriptCutOff

SCAN_PAGE = 1000
WAIT_PATIENCE_SECONDS = 1.0
"""How much later than asked for a blocked command may answer."""

# A server that refuses before the first write. redis-py cuts the first word off where it has a class for the error.
_NOT_APPLIED_ERRORS = (
    NotApplied,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.MasterDownError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
)
_NOT_APPLIED = (
    "BUSY",
    "LOADING",
    "READONLY",
    "MISCONF",
    "OOM",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "NOREPLICAS",
    "TRYAGAIN",
)


@dataclass(frozen=True, slots=True)
class PartitionState:
    """A partition's meta key: seq and head of its last transaction, and how far the store has them. `why` it is closed;
    `acknowledged`: the seq that somebody was told, where Redis has less, else 0; `ledger`: whose it is, "" unknown.
    """

    state: str
    epoch: int
    seq: int
    head: str
    flushed: int
    clock_ms: int | None
    why: str = ""
    acknowledged: int = 0
    ledger: str = ""


class RedisGateway:
    """Commands on one Redis. Every failure to decide is `RedisUnavailable`; a script's own fault is `ScriptError`."""

    def __init__(self, client: Any, patience_seconds: float = inf, name: str = "") -> None:
        """A script call on a connection that is up has a reply, or fails, within `patience_seconds`. `name` tells one
        server from the others that balances are spread over.
        """
        self.name = name
        self._client = client
        self._patience_seconds = patience_seconds
        self._idle: list[ScriptConnection] = []
        self._kept: tuple[str, str] | None = None
        self._waiting: list[Any] = []
        self._is_closed = False

    async def run(self, program: Program, keys: Sequence[str], arguments: Sequence[str | int]) -> str:
        """Runs a program by its hash; by its text when Redis has forgotten it, which also teaches it again."""
        try:
            try:
                return _text(await self.call("EVALSHA", program.sha, len(keys), *keys, *arguments))
            except exceptions.NoScriptError:
                return _text(await self.call("EVAL", program.source, len(keys), *keys, *arguments))
        except exceptions.ResponseError as error:
            raise _fault_of_script(program, error) from error
        except (exceptions.RedisError, OSError) as error:
            raise fault_of(error) from error

    async def run_waiting(
        self, program: Program, keys: Sequence[str], arguments: Sequence[str | int], replicas: int, within_ms: int
    ) -> tuple[str, int]:
        """`run`, and how many replicas have what Redis has then: waits for so many, for so long at most."""
        wait = (replicas, within_ms)
        try:
            try:
                reply = await self.call_waiting(wait, "EVALSHA", program.sha, len(keys), *keys, *arguments)
            except exceptions.NoScriptError:
                reply = await self.call_waiting(wait, "EVAL", program.source, len(keys), *keys, *arguments)
        except exceptions.ResponseError as error:
            raise _fault_of_script(program, error) from error
        except (exceptions.RedisError, OSError) as error:
            raise fault_of(error) from error
        return _text(reply[0]), reply[1]

    @property
    def patience_seconds(self) -> float:
        """How long a script call that begins now may take: without end while it would have to connect first."""
        return self._patience_seconds if self._idle and self._idle[-1].is_open else inf

    def keep_to(self, meta_key: str, ledger: str) -> None:
        """From now on no program is run on a Redis whose partition there belongs to another ledger."""
        self._kept = (meta_key, ledger)

    async def servers(self) -> Sequence[RedisGateway]:
        """Each server that has balances or may come to have some, to be asked by itself. Raises `RedisUnavailable`."""
        return (self,)

    async def ping(self) -> None:
        """Returns when Redis answers."""
        await self._command("PING")

    async def check_scheme(self) -> None:
        """Raises `RedisDenied` when the URL should begin with the other one of redis:// and rediss://, or TLS wants a
        certificate of ours.
        """
        pool = self._client.connection_pool
        host, port = pool.connection_kwargs.get("host"), pool.connection_kwargs.get("port")
        if host is not None and port is not None:
            tls = issubclass(pool.connection_class, SSLConnection)
            await check_scheme(str(host), int(port), tls=tls)
            if tls and not pool.connection_kwargs.get("ssl_certfile"):
                await check_certificate(str(host), int(port))

    async def info(self) -> dict[str, str] | None:
        """What INFO says of the server; None where it is not to be had. Raises `RedisUnavailable`."""
        try:
            found = await self._client.info()
        except exceptions.ResponseError as error:
            fault = fault_of(error)
            if isinstance(fault, RedisDenied):
                raise fault from error
            return None
        except (exceptions.RedisError, OSError) as error:
            raise fault_of(error) from error
        return {_text(name): _text(value) for name, value in found.items()}

    async def script_times(self) -> tuple[int, int] | None:
        """How often it ran a script by its hash, and the microseconds that it took over all that; None where that is
        not to be had. Raises `RedisUnavailable`.
        """
        try:
            found = await self._client.info("commandstats")
        except exceptions.ResponseError:
            return None
        except (exceptions.RedisError, OSError) as error:
            raise fault_of(error) from error
        told = found.get("cmdstat_evalsha")
        return None if told is None else (int(told["calls"]), int(told["usec"]))

    async def refusals(self, who: Sequence[Who], key: str, keys: Sequence[str]) -> list[str]:
        """What Redis refuses its user of the commands of `who` (on `key`, which nobody uses) and of `keys`: names of
        commands, then keys. Nothing is run. Raises `RedisUnavailable`.
        """
        connection = self._client.connection_pool.make_connection()
        try:
            await connection.connect()
            return await _refusals(connection, who, key, keys)
        except (exceptions.RedisError, OSError) as error:
            raise fault_of(error) from error
        finally:
            await connection.disconnect(nowait=True)

    async def allowed(self, calls: Sequence[Sequence[str]]) -> list[str]:
        """Which of some commands its user may run. Nothing is run. Raises `RedisUnavailable`."""
        connection = self._client.connection_pool.make_connection()
        try:
            await connection.connect()
            return await _allowed(connection, calls)
        except (exceptions.RedisError, OSError) as error:
            raise fault_of(error) from error
        finally:
            await connection.disconnect(nowait=True)

    async def due_users(self, due_key: str, until_ms: int, limit: int) -> list[str]:
        """user_ids with something due at `until_ms`, the longest due first."""
        found = await self._command("ZRANGEBYSCORE", due_key, "-inf", until_ms, "LIMIT", 0, limit)
        return [_text(user) for user in found]

    async def outbox_entries(self, outbox_key: str, from_seq: int, limit: int) -> list[tuple[int, bytes]]:
        """Outbox entries with seq >= `from_seq`, in order, as (seq, JSON text). As script calls travel: what
        redis-py does for it costs a small flush as much as its fold.
        """
        try:
            found: Any = await self.call("XRANGE", outbox_key, f"{from_seq}-0", "+", "COUNT", limit)
        except (exceptions.RedisError, OSError) as error:
            raise fault_of(error) from error
        return [(int(entry_id.partition(b"-")[0]), members[1]) for entry_id, members in found]

    async def wait_for_outbox(self, outbox_key: str, after_seq: int, seconds: float) -> bool:
        """Returns when the outbox has an entry beyond a seq, or after a while; whether it has. One command, however
        long that is.
        """
        try:
            return await self.wait_for_entry(outbox_key, after_seq, seconds)
        except (exceptions.RedisError, OSError) as error:
            raise fault_of(error) from error

    async def partition_state(self, meta_key: str) -> PartitionState | None:
        """What the partition says of itself; None when Redis has none."""
        names = ("state", "epoch", "seq", "head", "flushed", "clock_ms", "why", "acknowledged", "ledger")
        found = await self._command("HMGET", meta_key, *names)
        if found[2] is None:
            return None
        state, epoch, seq, head, flushed, clock, why, acknowledged, ledger = (
            None if value is None else _text(value) for value in found
        )
        return PartitionState(
            state or "closed",
            int(epoch or 0),
            int(seq or 0),
            head or "-",
            int(flushed or 0),
            None if clock is None else int(clock),
            why or "",
            int(acknowledged or 0),
            ledger or "",
        )

    async def existing(self, keys: Sequence[str]) -> int:
        """How many of some keys there are. None of a partition's is ever empty (lua/state/sentinel.lua)."""
        return int(await self._command("EXISTS", *keys))

    async def account_sums(self, accounts_key: str) -> tuple[int, int, int]:
        """(accounts, sum of available, sum of reserved) over a partition, read in pages."""
        count = available = reserved = 0
        async for page in self._pages(accounts_key):
            for user, text in page.items():
                if user:  # the empty one is the sentinel
                    free, held, _ = text.split(b" ", 2)
                    count, available, reserved = count + 1, available + int(free), reserved + int(held)
        return count, available, reserved

    async def account_users(self, accounts_key: str) -> list[str]:
        """user_ids of every account of a partition, read in pages; one that changes meanwhile may come twice."""
        users: list[str] = []
        async for page in self._pages(accounts_key):
            users += [_text(user) for user in page if user]  # the empty one is the sentinel
        return users

    async def fields_naming(self, key: str, text: str) -> AsyncIterator[list[str]]:
        """The fields of a hash that have a text in name or value, a page at a time."""
        needle = text.encode()
        async for page in self._pages(key):
            yield [_text(name) for name, value in page.items() if needle in name or needle in value]

    async def drop(self, keys: Sequence[str]) -> None:
        """Removes keys, in the background where the server can."""
        await self._command("UNLINK", *keys)

    async def field(self, key: str, name: str) -> bytes | None:
        """One field of a hash, or None."""
        found = await self._command("HGET", key, name)
        return None if found is None else bytes(found)

    async def add_to_stream(self, key: str, members: Mapping[str, str | bytes], length_max: int) -> None:
        """Adds an entry to a stream that keeps about so many."""
        pairs = [part for pair in members.items() for part in pair]
        await self._command("XADD", key, "MAXLEN", "~", length_max, "*", *pairs)

    async def time_ms(self) -> int:
        """Redis' own time."""
        seconds, microseconds = await self._command("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def fields_of(self, key: str) -> dict[str, bytes]:
        """The fields of a small hash, read in pages."""
        fields: dict[str, bytes] = {}
        async for page in self._pages(key):
            fields |= {_text(name): bytes(value) for name, value in page.items()}
        return fields

    async def _pages(self, key: str) -> AsyncIterator[dict[bytes, bytes]]:
        """A hash, some fields at a time."""
        cursor, page = await self._command("HSCAN", key, 0, "COUNT", SCAN_PAGE)
        yield page
        while cursor:
            cursor, page = await self._command("HSCAN", key, cursor, "COUNT", SCAN_PAGE)
            yield page

    async def put_field(self, key: str, name: str, value: str) -> None:
        """Sets a field of a hash."""
        await self._command("HSET", key, name, value)

    async def drop_fields(self, key: str, names: Sequence[str]) -> int:
        """Removes fields of a hash; answers how many were there."""
        return int(await self._command("HDEL", key, *names))

    async def close(self) -> None:
        """Closes every connection; one that is in use when its reply is there."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()
        while self._waiting:
            await self._waiting.pop().disconnect()
        await self._client.aclose(close_connection_pool=True)

    async def call(self, *arguments: str | int) -> object:
        """A command on a connection that is ours alone, the last that was used or a new one. One that was lost since
        is a fault, once: whoever answers now may have an older history, and the caller is to look (RedisUnavailable).
        Raises what redis-py raises, as do the other commands without a name of their own.
        """
        if self._idle and not self._idle[-1].is_open:
            for connection in self._idle:
                connection.close()
            self._idle.clear()
            raise exceptions.ConnectionError("Redis closed the connection")
        connection = self._idle.pop() if self._idle else await self._new_connection()
        try:
            reply = await connection.call(hiredis.pack_command(arguments))  # type: ignore[arg-type]
        except exceptions.ReadOnlyError:  # a replica by now: the master is elsewhere
            connection.close()
            raise
        except exceptions.ResponseError:
            self._idle.append(connection)
            raise
        except BaseException:  # of a caller that was cancelled too: its reply may still come
            connection.close()
            raise
        if self._is_closed:
            connection.close()
        else:
            self._idle.append(connection)
        return reply

    async def call_asking(self, *arguments: str | int) -> object:
        """`call` on a server that is being given the slot of the key (ASK): on a connection of its own."""
        connection = await self._new_connection()
        try:
            await connection.call(_packed("ASKING"))
            return await connection.call(_packed(*arguments))
        finally:
            connection.close()

    async def call_waiting(self, wait: tuple[int, int], *arguments: str | int) -> tuple[object, int]:
        """A script call and WAIT behind it, on one connection. WAIT is for what its connection has written, and a call
        that is answered as an earlier one writes nothing: so a field of meta, its first key, is written in between.
        """
        connection = self._idle.pop() if self._idle and self._idle[-1].is_open else await self._new_connection()
        try:
            reply = await connection.call(_packed(*arguments))
            await connection.call(_packed("HSET", arguments[3], "waited", ""))
            acknowledged = await connection.call(_packed("WAIT", *wait))
        except exceptions.NoScriptError:
            self._idle.append(connection)
            raise
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return reply, int(str(acknowledged))

    async def command(self, *arguments: str | int | bytes) -> Any:
        """A command on one of redis-py's connections."""
        return await self._client.execute_command(*arguments)

    async def command_asking(self, *arguments: str | int | bytes) -> Any:
        """The same on a server that is being given the slot of the key."""
        async with self._client.pipeline(transaction=False) as both:
            both.execute_command("ASKING")
            both.execute_command(*arguments)
            _, reply = await both.execute(raise_on_error=False)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def wait_for_entry(self, outbox_key: str, after_seq: int, seconds: float, *, asking: bool = False) -> bool:
        """`wait_for_outbox`, on a connection of its own."""
        connection = self._waiting.pop() if self._waiting else self._client.connection_pool.make_connection()
        block_ms, last_id = round(seconds * 1000), f"{after_seq}-0"
        try:
            connection.socket_timeout = seconds + WAIT_PATIENCE_SECONDS
            await connection.connect()
            if asking:
                await connection.send_command("ASKING")
                await connection.read_response()
            await connection.send_command("XREAD", "COUNT", 1, "BLOCK", block_ms, "STREAMS", outbox_key, last_id)
            return bool(await connection.read_response())
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            if self._is_closed:
                await connection.disconnect(nowait=True)
            else:
                self._waiting.append(connection)

    async def _new_connection(self) -> ScriptConnection:
        connection = self._client.connection_pool.make_connection()
        try:
            await connection.connect()
            await self._check_ledger(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection.wire(self._patience_seconds) if hasattr(connection, "wire") else AsItIs(connection)

    async def _check_ledger(self, connection: Any) -> None:
        """Whoever answers a new connection may be another server: an address can move. Raises `RedisDenied`."""
        if self._kept is None:
            return
        meta_key, ledger = self._kept
        await connection.send_command("HGET", meta_key, "ledger")
        try:
            found = await connection.read_response()
        except exceptions.ResponseError as error:
            if redirection_of(error)[0]:
                return  # another node has it
            raise
        if found is not None and _text(found) != ledger:
            ours = "none" if ledger == NO_STORE else ledger
            told = f"another Redis answers there, which has ledger {_text(found)} and not {ours}; nothing was changed"
            raise RedisDenied("ledger", f"{REDIS}: {told}")

    async def _command(self, *arguments: str | int | bytes) -> Any:
        try:
            return await self.command(*arguments)
        except (exceptions.RedisError, OSError) as error:
            raise fault_of(error) from error


async def _allowed(connection: Any, calls: Sequence[Sequence[str]]) -> list[str]:
    """As `_refusals`; nothing is sent behind a MULTI that was not taken."""
    found: list[str] = []
    for call in (("MULTI",), *calls, ("DISCARD",)):
        await connection.send_command(*call)
        try:
            reply = _text(await connection.read_response())
        except exceptions.ResponseError:
            reply = ""
        if call[0] == "MULTI" and reply != "OK":
            break
        found += [call[0]] if reply == "QUEUED" else []
    return found


async def _refusals(connection: Any, who: Sequence[Who], key: str, keys: Sequence[str]) -> list[str]:
    """On a connection of its own: what is queued after MULTI is dropped by DISCARD, or with the connection."""
    refused: dict[str, None] = {}

    async def ask(*call: str) -> str:
        await connection.send_command(*call)
        try:
            return _text(await connection.read_response())
        except exceptions.ResponseError as error:
            if is_of_rights(str(error)) or isinstance(error, exceptions.NoPermissionError):
                is_of_key = "key" in str(error).lower()
                refused.update({next(part for part in call if part in (key, *keys)) if is_of_key else call[0]: None})
            elif "unknown command" in str(error).lower() and call[0] != "INFO":
                refused[call[0]] = None
        return ""

    if Who.QUEUE in who:
        await ask("WATCH", key)
        for name in ("UNWATCH", "MULTI", "EXEC"):
            await ask(name)
    if await ask("MULTI") == "OK":  # else what follows would be run
        for call in (*calls(who, key), *reaching(who, keys)):
            await ask(*call)
        await ask("DISCARD")
    return list(refused)


def _fault_of_script(program: Program, error: exceptions.ResponseError) -> MeterError:
    """What it means that Redis refuses a script call, or that a script failed."""
    message = str(error)
    if isinstance(error, _NOT_APPLIED_ERRORS) or message.startswith(_NOT_APPLIED):
        return RedisUnavailable("redis", message)
    if isinstance(error, exceptions.NoPermissionError) or redirection_of(error)[0]:
        return fault_of(error)  # before its first line
    if is_of_rights(message):
        return ScriptCutOff(f"{fault_of(error)}; {program.error(message)}")
    return program.error(message)


def _packed(*arguments: str | int) -> bytes:
    """A command as it is sent."""
    packed: bytes = hiredis.pack_command(arguments)  # type: ignore[arg-type]
    return packed


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
