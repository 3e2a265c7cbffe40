"""Version 13: what the call is called that an errand comes from. It looks first whether it was done."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Makes the column."""
    if "reference" not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns("errands")}:
        by_bytes = postgresql.VARCHAR(128, collation="C")
        kind = sa.String(128).with_variant(by_bytes, "postgresql")
        op.add_column("errands", sa.Column("reference", kind, nullable=True))
