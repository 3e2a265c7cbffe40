"""Version 18: what plans say of prices. Every step looks first whether it was done."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"


def _columns() -> tuple[sa.Column[Any], ...]:
    by_bytes = postgresql.VARCHAR(128, collation="C")
    card = sa.Column("rate_card", sa.String(128).with_variant(by_bytes, "postgresql"), nullable=True)
    return card, sa.Column("price_multiplier", sa.BigInteger(), nullable=True, autoincrement=False)


def upgrade() -> None:
    """Makes the columns."""
    present = sa.inspect(op.get_bind())
    for table in ("plans", "plan_terms", "subscriptions"):
        names = {column["name"] for column in present.get_columns(table)}
        for column in _columns():
            if column.name not in names:
                op.add_column(table, column)
