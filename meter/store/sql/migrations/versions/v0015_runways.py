"""Version 15: of whom it was told how soon their credits run out. It looks first whether it was done."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"

_INNODB = {"engine": "InnoDB", "default_charset": "utf8mb4", "collate": "utf8mb4_bin"}
_OPTIONS: dict[str, Any] = {f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _INNODB.items()}


def upgrade() -> None:
    """Makes the table."""
    if sa.inspect(op.get_bind()).has_table("runways"):
        return
    by_bytes = postgresql.VARCHAR(128, collation="C")
    op.create_table(
        "runways",
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.String(128).with_variant(by_bytes, "postgresql"), nullable=False),
        sa.Column("days", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id"),
        **_OPTIONS,
    )
