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


_INDEX = "ix_refusal_counts_hour_ms"


def upgrade() -> None:
    """Makes the table and its index, each where it is not there: MySQL keeps what was done before a kill."""
    present = sa.inspect(op.get_bind())
    if not present.has_table("refusal_counts"):
        _make_table()
    if _INDEX not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("refusal_counts")}:
        op.create_index(_INDEX, "refusal_counts", ["hour_ms"])


def _make_table() -> None:
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
