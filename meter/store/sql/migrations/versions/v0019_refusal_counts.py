"""Version 19: how often users were refused, by hour and reason. It looks first whether it was done."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"

_INNODB = {"engine": "InnoDB", "default_charset": "utf8mb4", "collate": "utf8mb4_bin"}
_OPTIONS: dict[str, Any] = {f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _INNODB.items()}


def upgrade() -> None:
    """Makes the table."""
    if sa.inspect(op.get_bind()).has_table("refusal_counts"):
        return

    def word(name: str, length: int) -> sa.Column[Any]:
        by_bytes = postgresql.VARCHAR(length, collation="C")
        return sa.Column(name, sa.String(length).with_variant(by_bytes, "postgresql"), nullable=False)

    op.create_table(
        "refusal_counts",
        sa.Column("version", sa.BigInteger(), nullable=False),
        word("user_id", 128),
        sa.Column("hour_ms", sa.BigInteger(), nullable=False, autoincrement=False),
        word("reason", 32),
        sa.Column("refusals", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "hour_ms", "reason"),
        **_OPTIONS,
    )
    op.create_index("ix_refusal_counts_hour_ms", "refusal_counts", ["hour_ms"])
