"""Version 4: the first answers of calls with a key. Every step looks first whether it was done."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

revision = "0004"
down_revision = "0003"

_INNODB = {"engine": "InnoDB", "default_charset": "utf8mb4", "collate": "utf8mb4_bin"}
_OPTIONS: dict[str, Any] = {f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _INNODB.items()}


def _word(name: str, length: int) -> sa.Column[Any]:
    by_bytes = postgresql.VARCHAR(length, collation="C")
    return sa.Column(name, sa.String(length).with_variant(by_bytes, "postgresql"), nullable=False)


def upgrade() -> None:
    """Makes the table."""
    if sa.inspect(op.get_bind()).has_table("answers"):
        return
    long_text = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
    op.create_table(
        "answers",
        _word("operation_id", 128),
        _word("fingerprint", 64),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("body", long_text.with_variant(mysql.LONGTEXT(), "mysql", "mariadb"), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("operation_id"),
        **_OPTIONS,
    )
