"""Version 2: what rolls over, on plans and on grants. Every step looks first whether it was done."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def _add(table: str, column: sa.Column[Any]) -> None:
    if column.name not in {present["name"] for present in sa.inspect(op.get_bind()).get_columns(table)}:
        op.add_column(table, column)


def upgrade() -> None:
    """Adds the columns; what is there already has none of it."""
    by_bytes = postgresql.VARCHAR(80, collation="C")
    _add("grants", sa.Column("at_end", sa.String(80).with_variant(by_bytes, "postgresql"), nullable=True))
    for name in ("rollover_max", "rollover_percent", "rollover_days"):
        _add("plans", sa.Column(name, sa.BigInteger(), nullable=True))
