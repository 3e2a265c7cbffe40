"""The baseline of a flush to PostgreSQL: its rows again, by COPY and INSERT … ON CONFLICT and nothing else."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Sequence
from typing import Any

from meter.store.row import Row
from meter.store.rows import AccountRow, GrantRow, ReservationRow, TransactionRow

_SNAPSHOTS: tuple[type[Row], ...] = (AccountRow, GrantRow, ReservationRow)
_TABLES: tuple[type[Row], ...] = (TransactionRow, *_SNAPSHOTS)


def is_postgres(url: str) -> bool:
    """Whether there is this baseline for a store."""
    return url.startswith(("postgres://", "postgresql"))


async def plain_rate(url: str, rows_max: int) -> float:
    """Transactions a second, in chunks of `rows_max` with the accounts, grants and reservations that each touches. The
    database must be one that was flushed into; it is left as it was.
    """
    asyncpg: Any = importlib.import_module("asyncpg")
    connection = await asyncpg.connect("postgresql://" + url.split("://", 1)[1])
    try:
        rows = await connection.fetch(f"SELECT * FROM {TransactionRow.TABLE} ORDER BY seq")  # noqa: S608
        snapshots = [_Snapshots(model, await connection.fetch(f"SELECT * FROM {model.TABLE}")) for model in _SNAPSHOTS]  # noqa: S608
        for model in _TABLES:
            await connection.execute(f"DROP TABLE IF EXISTS bench_{model.TABLE}")
            await connection.execute(f"CREATE TABLE bench_{model.TABLE} (LIKE {model.TABLE} INCLUDING ALL)")
        for model in _SNAPSHOTS:
            like = f"(LIKE {model.TABLE}) ON COMMIT DELETE ROWS"
            await connection.execute(f"CREATE TEMPORARY TABLE staging_{model.TABLE} {like}")
        chunks = []
        for at in range(0, len(rows), rows_max):
            part = rows[at : at + rows_max]
            chunks.append(([tuple(row) for row in part], [kept.touched(part) for kept in snapshots]))
        columns = list(rows[0].keys())
        started = time.perf_counter()
        for transactions, touched in chunks:
            async with connection.transaction():
                await connection.copy_records_to_table("bench_transactions", records=transactions, columns=columns)
                for kept, records in zip(snapshots, touched, strict=True):
                    await kept.replace(connection, records)
        rate = len(rows) / (time.perf_counter() - started)
        for model in _TABLES:
            await connection.execute(f"DROP TABLE bench_{model.TABLE}")
        return rate
    finally:
        await connection.close()


class _Snapshots:
    """The rows of one model as the flush left them."""

    def __init__(self, model: type[Row], records: Sequence[Any]) -> None:
        self._model = model
        self._names = list(model.model_fields)
        self._rows = {
            tuple(record[name] for name in model.KEY): tuple(record[n] for n in self._names) for record in records
        }
        changed = ", ".join(f"{name} = excluded.{name}" for name in self._names if name not in model.KEY)
        names, keys = ", ".join(self._names), ", ".join(model.KEY)
        self._insert = (
            f"INSERT INTO bench_{model.TABLE} ({names}) SELECT {names} FROM staging_{model.TABLE} "  # noqa: S608
            f"ON CONFLICT ({keys}) DO UPDATE SET {changed}"
        )

    def touched(self, transactions: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The rows that belong to transactions."""
        if self._model is GrantRow:
            keys: set[tuple[Any, ...]] = {
                (row["user_id"], grant_id) for row in transactions for grant_id, _ in json.loads(row["draws"])
            }
        else:
            keys = {(row[self._model.KEY[0]],) for row in transactions}
        return [self._rows[key] for key in keys if key in self._rows]

    async def replace(self, connection: Any, records: Sequence[tuple[Any, ...]]) -> None:
        """Puts rows in the place of older ones."""
        staging = f"staging_{self._model.TABLE}"
        await connection.copy_records_to_table(staging, records=records, columns=self._names)
        await connection.execute(self._insert)
