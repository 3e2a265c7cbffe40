"""Version 22: what plans say of budgets and rate limits. Every step looks first whether it was done."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0022"
down_revision = "0021"

_LENGTH = 4000


def upgrade() -> None:
    """Makes the columns."""
    present = sa.inspect(op.get_bind())
    for table in ("plans", "plan_terms", "subscriptions"):
        if "rules" not in {column["name"] for column in present.get_columns(table)}:
            by_bytes = postgresql.VARCHAR(_LENGTH, collation="C")
            op.add_column(
                table, sa.Column("rules", sa.String(_LENGTH).with_variant(by_bytes, "postgresql"), nullable=True)
            )
