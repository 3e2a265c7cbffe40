"""Version 6: what a caller calls an operation. Every step looks first whether it was done.

Rows of before have none: their idempotency key, which was shown as the reference, still finds them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"

_INDEX = "ix_transactions_reference_created_at_ms"


def upgrade() -> None:
    """Adds the columns, and the index that leaves out the rows without one where the database can."""
    present = sa.inspect(op.get_bind())
    for table in ("transactions", "grants", "reservations"):
        if "reference" not in {column["name"] for column in present.get_columns(table)}:
            by_bytes = postgresql.VARCHAR(128, collation="C")
            kind = sa.String(128).with_variant(by_bytes, "postgresql")
            op.add_column(table, sa.Column("reference", kind, nullable=True))
    if _INDEX not in {index["name"] for index in present.get_indexes("transactions")}:
        some = sa.text("reference IS NOT NULL")
        columns = ["reference", "created_at_ms"]
        op.create_index(_INDEX, "transactions", columns, postgresql_where=some, sqlite_where=some)
