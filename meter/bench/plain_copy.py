"""The baseline of a flush to PostgreSQL: its rows again, by COPY and INSERT … ON CONFLICT and nothing else."""

from __future__ import annotations

import importlib
import time
from typing import Any

_TABLES = "DROP TABLE IF EXISTS bench_transactions, bench_accounts"
_MAKE = (
    "CREATE TABLE bench_transactions (LIKE transactions INCLUDING ALL)",
    "CREATE TABLE bench_accounts (LIKE accounts INCLUDING ALL)",
    "CREATE TEMPORARY TABLE bench_staging (LIKE accounts) ON COMMIT DELETE ROWS",
)


def is_postgres(url: str) -> bool:
    """Whether there is this baseline for a store."""
    return url.startswith(("postgres://", "postgresql"))


async def plain_rate(url: str, rows_max: int, accounts_max: int) -> float:
    """Transactions a second, in chunks of `rows_max` with the accounts that each touches. The database must be one
    that was flushed into; it is left as it was.
    """
    asyncpg: Any = importlib.import_module("asyncpg")
    connection = await asyncpg.connect("postgresql://" + url.split("://", 1)[1])
    try:
        rows = await connection.fetch("SELECT * FROM transactions ORDER BY seq")
        found = await connection.fetch("SELECT * FROM accounts LIMIT $1", accounts_max)
        accounts = {account["user_id"]: tuple(account) for account in found}
        names = list(found[0].keys())
        changed = ", ".join(f"{name} = excluded.{name}" for name in names if name != "user_id")
        insert = f"INSERT INTO bench_accounts SELECT * FROM bench_staging ON CONFLICT (user_id) DO UPDATE SET {changed}"  # noqa: S608
        await connection.execute(_TABLES)
        for statement in _MAKE:
            await connection.execute(statement)
        chunks = []
        for at in range(0, len(rows), rows_max):
            part = rows[at : at + rows_max]
            users = {row["user_id"] for row in part} & accounts.keys()
            chunks.append(([tuple(row) for row in part], [accounts[user] for user in users]))
        columns = list(rows[0].keys())
        started = time.perf_counter()
        for transactions, touched in chunks:
            async with connection.transaction():
                await connection.copy_records_to_table("bench_transactions", records=transactions, columns=columns)
                await connection.copy_records_to_table("bench_staging", records=touched, columns=names)
                await connection.execute(insert)
        rate = len(rows) / (time.perf_counter() - started)
        await connection.execute(_TABLES)
        return rate
    finally:
        await connection.close()
