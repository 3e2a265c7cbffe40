"""Flushes into SQLite, each in one call of a thread that has a connection of its own.

By way of SQLAlchemy and aiosqlite each statement of a flush is a message to a thread and back, which costs more than
SQLite itself where flushes are small and many.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import orjson
from sqlalchemy.dialects import sqlite

from meter.store.base import Flush, Flushed
from meter.store.rows import WatermarkRow
from meter.store.sql.dialect import SqlDialect
from meter.store.sql.flush import PLACE, Ask, Fenced, Move, Outdate, Put, Rename, Revoke, Step, flush_steps, updates_of

_WATERMARK = tuple(WatermarkRow.model_fields)
_FIRST = f"INSERT INTO watermarks ({', '.join(_WATERMARK)}) VALUES ({', '.join('?' * len(_WATERMARK))})"  # noqa: S608
_SET = f"UPDATE watermarks SET {'=?, '.join(_WATERMARK)}=?"  # noqa: S608
_MOVE = f"{_SET} WHERE {'=? AND '.join(PLACE)}=? AND bucket_minutes IS ?"


class SqliteWriter:
    """`connect` opens a connection that begins no transactions by itself."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], dialect: SqlDialect) -> None:
        self._connect = connect
        self._dialect = dialect
        self._sqlalchemy = sqlite.dialect()
        self._thread = ThreadPoolExecutor(1, "meter-sqlite-writer")
        self._connection: sqlite3.Connection | None = None

    async def apply(self, flush: Flush) -> Flushed:
        """Commits a flush. Raises `Fenced`, and what `sqlite3` raises; then nothing is written."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._apply, flush)

    async def close(self) -> None:
        """Ends the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    def _apply(self, flush: Flush) -> Flushed:
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            done = self._carry_out(connection, flush)
            connection.execute("COMMIT")
        except BaseException:
            if not _rolled_back(connection):
                self._disconnect()
            raise
        return done

    def _carry_out(self, connection: sqlite3.Connection, flush: Flush) -> Flushed:
        steps = flush_steps(flush)
        try:
            step = next(steps)
            while True:
                step = steps.send(self._take(connection, step))
        except StopIteration as end:
            done: Flushed = end.value
            return done

    def _take(self, connection: sqlite3.Connection, step: Step) -> Sequence[Any]:
        match step:
            case Move():
                _move(connection, step)
            case Put() if step.rows:
                statement = self._dialect.statement(step.model, self._sqlalchemy, is_snapshot=step.is_snapshot)
                connection.executemany(statement, self._dialect.columns(step.model).tuples(step.rows))
            case Ask():
                return connection.execute(*_asked(step)).fetchall()
            case Rename() | Outdate() | Revoke():
                for change in updates_of(step):
                    compiled = change.compile(dialect=self._sqlalchemy)
                    connection.execute(str(compiled), [compiled.params[name] for name in compiled.positiontup or ()])
        return ()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()


def _move(connection: sqlite3.Connection, move: Move) -> None:
    reached = [getattr(move.reached, name) for name in _WATERMARK]
    if move.expected is not None:
        expected = [getattr(move.expected, name) for name in (*PLACE, "bucket_minutes")]
        if connection.execute(_MOVE, [*reached, *expected]).rowcount != 1:
            raise Fenced
        return
    try:
        connection.execute(_FIRST, reached)
    except sqlite3.IntegrityError:
        raise Fenced from None


def _asked(ask: Ask) -> tuple[str, tuple[object, ...]]:
    each = ["value"] if len(ask.by) == 1 else [f"json_extract(value, '$[{at}]')" for at in range(len(ask.by))]
    wanted = f"({', '.join(ask.by)}) IN (SELECT {', '.join(each)} FROM json_each(?))"  # noqa: S608 - our names
    values: tuple[object, ...] = (orjson.dumps(ask.keys).decode(),)
    if ask.partition is not None:
        wanted, values = f"{wanted} AND partition = ?", (*values, ask.partition)
    return f"SELECT {', '.join(ask.columns)} FROM {ask.model.TABLE} WHERE {wanted}", values  # noqa: S608 - our names


def _rolled_back(connection: sqlite3.Connection) -> bool:
    """Whether the connection can be used again."""
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error:
        return False
    return True
