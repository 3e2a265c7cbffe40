"""Version 8: users whose names are being taken out. Every step looks first whether it was done."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"

_INNODB = {"engine": "InnoDB", "default_charset": "utf8mb4", "collate": "utf8mb4_bin"}
_OPTIONS: dict[str, Any] = {f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _INNODB.items()}


def _word(name: str, length: int) -> sa.Column[Any]:
    by_bytes = postgresql.VARCHAR(length, collation="C")
    return sa.Column(name, sa.String(length).with_variant(by_bytes, "postgresql"), nullable=False)


def upgrade() -> None:
    """Makes the table."""
    if sa.inspect(op.get_bind()).has_table("anonymisations"):
        return
    op.create_table(
        "anonymisations",
        _word("user_id", 128),
        _word("pseudonym", 128),
        _word("secret", 64),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id"),
        **_OPTIONS,
    )
