"""Version 16: what a search over everything looks through: transactions by kind and time, grants by id, refusals by
what the caller called the operation, and when an account was last charged. Every step looks first whether it was done.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Adds the columns and the indexes."""
    _add("accounts", sa.Column("last_spent_at_ms", sa.BigInteger(), nullable=True))
    by_bytes = postgresql.VARCHAR(128, collation="C")
    _add("ledger_events", sa.Column("reference", sa.String(128).with_variant(by_bytes, "postgresql"), nullable=True))
    _index("transactions", "kind", "created_at_ms")
    _index("grants", "grant_id")
    _index("ledger_events", "reference", "created_at_ms", some=sa.text("reference IS NOT NULL"))


def _add(table: str, column: sa.Column[object]) -> None:
    if column.name not in {one["name"] for one in sa.inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)


def _index(table: str, *columns: str, some: sa.TextClause | None = None) -> None:
    name = f"ix_{table}_{'_'.join(columns)}"
    if name not in {one["name"] for one in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, list(columns), postgresql_where=some, sqlite_where=some)
