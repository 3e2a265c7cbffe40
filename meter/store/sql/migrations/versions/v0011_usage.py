"""Version 11: usage figures, what of the ledger they do not have yet, and how far and by what buckets they count. Every
step looks first whether it was done.

The figures begin empty. What the ledger has by then is a gap, which the first flush writes down and the worker fills.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"

_INNODB = {"engine": "InnoDB", "default_charset": "utf8mb4", "collate": "utf8mb4_bin"}
_OPTIONS: dict[str, Any] = {f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _INNODB.items()}


def _word(name: str, length: int, *, nullable: bool = False) -> sa.Column[Any]:
    by_bytes = postgresql.VARCHAR(length, collation="C")
    return sa.Column(name, sa.String(length).with_variant(by_bytes, "postgresql"), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable, autoincrement=False)


def _make_figures(present: sa.Inspector, table: str, more: list[sa.Column[Any]], in_key: list[str]) -> None:
    if not present.has_table(table):
        tags = [_word("model", 128), _word("feature", 64), _word("key_id", 128), _word("rate_card_version", 160)]
        key = ["path", "bucket_ms", *(str(tag.name) for tag in tags), *in_key]
        columns = [_word("path", 128), _number("bucket_ms"), *tags, *more]
        op.create_table(table, *columns, sa.PrimaryKeyConstraint(*key), **_OPTIONS, sqlite_with_rowid=False)
    index = f"ix_{table}_bucket_ms"
    if index not in {one["name"] for one in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(index, table, ["bucket_ms"])


def _add(present: sa.Inspector, table: str, *columns: sa.Column[Any]) -> None:
    names = {column["name"] for column in present.get_columns(table)}
    for column in columns:
        if column.name not in names:
            op.add_column(table, column)


def upgrade() -> None:
    """Makes the tables and the columns."""
    present = sa.inspect(op.get_bind())
    sums = [_number("requests"), _number("charged"), _number("refunded")]
    _make_figures(present, "usage_figures", sums, [])
    _make_figures(present, "usage_quantities", [_word("dimension", 32), _number("quantity")], ["dimension"])
    if not present.has_table("usage_gaps"):
        columns = [_number("version"), _number("partition"), _number("until_seq"), _number("after_seq")]
        key = sa.PrimaryKeyConstraint("partition", "until_seq")
        op.create_table("usage_gaps", *columns, _number("from_ms"), key, **_OPTIONS)
    _add(present, "watermarks", _number("counted_seq", nullable=True), _number("bucket_minutes", nullable=True))
    _add(present, "reservations", _word("feature", 64, nullable=True))
