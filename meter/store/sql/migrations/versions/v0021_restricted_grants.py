"""Version 21: what grants may be spent on, what reservations are for. Every step looks first whether it was done."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"

_TAGS = (("grants", "only"), ("reservations", "tags"), ("plans", "only"), ("plan_terms", "only"))


def upgrade() -> None:
    """Makes the columns."""
    present = sa.inspect(op.get_bind())
    _add(present, "accounts", sa.Column("restricted", sa.BigInteger(), nullable=True, autoincrement=False))
    for table, name in _TAGS:
        by_bytes = postgresql.VARCHAR(600, collation="C")
        _add(present, table, sa.Column(name, sa.String(600).with_variant(by_bytes, "postgresql"), nullable=True))


def _add(present: sa.Inspector, table: str, column: sa.Column[Any]) -> None:
    if column.name not in {one["name"] for one in present.get_columns(table)}:
        op.add_column(table, column)
