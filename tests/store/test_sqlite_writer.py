"""The thread that flushes into SQLite: what fails leaves nothing behind, and the next flush is none the worse."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meter.store.base import Flush, StoreRefused, StoreUnavailable
from meter.store.connect import open_store
from meter.store.sql.sqlite import SqliteStore
from tests.ledger.ground import AGREED
from tests.store.samples import operation, transaction, watermark


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    found = open_store(f"sqlite:///{tmp_path}/m.db")
    assert isinstance(found, SqliteStore)
    await found.open(AGREED)
    yield found
    await found.close()


def flush(*seqs: int) -> Flush:
    """A step over those transactions, from nothing."""
    return Flush(0, None, watermark(max(seqs)), transactions=[transaction(seq) for seq in seqs])


async def seqs(store: SqliteStore) -> list[int]:
    return [row.seq for row in await store.history("user-1", limit=9)]


async def test_a_flush_that_is_refused_leaves_nothing_and_the_next_one_goes_on(store: SqliteStore) -> None:
    twice = Flush(0, None, watermark(1), operations=[operation("a", "t"), operation("b", "t")])
    refused = Flush(0, None, watermark(2), transactions=[transaction(1), transaction(1)])
    with pytest.raises(StoreRefused, match="UNIQUE"):
        await store.apply(refused)
    assert await store.watermark(0) is None and await seqs(store) == []
    assert (await store.apply(flush(1, 2))).done
    assert not (await store.apply(twice)).done  # from nothing, and there is something
    assert await seqs(store) == [2, 1]


async def test_a_file_that_another_process_holds_is_away_and_then_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/m.db"
    store = open_store(url, timeout_seconds=0.05)
    await store.open(AGREED)
    other = sqlite3.connect(tmp_path / "m.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.apply(flush(1))
        other.execute("ROLLBACK")
        assert (await store.apply(flush(1))).done
    finally:
        other.close()
        await store.close()


async def test_a_connection_that_cannot_roll_back_is_made_anew(store: SqliteStore) -> None:
    assert (await store.apply(flush(1))).done
    connection = store._writer_thread._connection
    assert connection is not None
    connection.close()
    with pytest.raises(sqlite3.ProgrammingError):
        await store.apply(flush(2))
    step = Flush(0, watermark(1), watermark(2), transactions=[transaction(2)])
    assert (await store.apply(step)).done
    assert await seqs(store) == [2, 1]


async def test_it_writes_as_durably_as_the_others_do(store: SqliteStore) -> None:
    await store.apply(flush(1))
    connection = store._writer_thread._connection  # it may be used in any thread, one at a time
    assert connection is not None
    told = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert told == ["wal", 2]
