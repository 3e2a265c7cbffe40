"""Version 14: the rules of accounts, what levels have counted, and which reservations they count. Every step looks
first whether it was done.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"


def _word(name: str, length: int) -> sa.Column[Any]:
    by_bytes = postgresql.VARCHAR(length, collation="C")
    return sa.Column(name, sa.String(length).with_variant(by_bytes, "postgresql"), nullable=True)


def _add(present: sa.Inspector, table: str, *columns: sa.Column[Any]) -> None:
    names = {column["name"] for column in present.get_columns(table)}
    for column in columns:
        if column.name not in names:
            op.add_column(table, column)


def upgrade() -> None:
    """Makes the columns."""
    present = sa.inspect(op.get_bind())
    _add(present, "accounts", _word("rules", 4000), _word("counters", 100))
    _add(present, "reservations", sa.Column("counted_seq", sa.BigInteger(), nullable=True, autoincrement=False))
