"""Version 20: what is bought when few credits are left, and each request for it. Every step looks first whether it was
done: MySQL keeps what was done before a kill.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0020"
down_revision = "0019"

_INNODB = {"engine": "InnoDB", "default_charset": "utf8mb4", "collate": "utf8mb4_bin"}
_OPTIONS: dict[str, Any] = {f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _INNODB.items()}
_INDEXED = (("state", "next_attempt_at_ms"), ("user_id", "created_at_ms"), ("created_at_ms", "top_up_id"))


def upgrade() -> None:
    """Makes the column, the table and its indexes, each where it is not there."""
    present = sa.inspect(op.get_bind())
    if "top_up" not in {column["name"] for column in present.get_columns("accounts")}:
        op.add_column("accounts", _word("top_up", 400, nullable=True))
    if not present.has_table("top_ups"):
        _make_table()
    indexes = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("top_ups")}
    for names in _INDEXED:
        if (name := f"ix_top_ups_{'_'.join(names)}") not in indexes:
            op.create_index(name, "top_ups", list(names))


def _word(name: str, length: int, *, nullable: bool = False) -> sa.Column[Any]:
    by_bytes = postgresql.VARCHAR(length, collation="C")
    return sa.Column(name, sa.String(length).with_variant(by_bytes, "postgresql"), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable, autoincrement=False)


def _make_table() -> None:
    op.create_table(
        "top_ups",
        _number("version"),
        _word("top_up_id", 128),
        _word("user_id", 128),
        _number("below"),
        _number("amount"),
        _number("most", nullable=True),
        _word("period", 32),
        _word("reference", 200),
        _number("created_at_ms"),
        _word("state", 32),
        _word("step", 32),
        _word("outcome", 32, nullable=True),
        _number("declines"),
        _number("looks"),
        _number("next_attempt_at_ms"),
        _number("asked_at_ms", nullable=True),
        _word("payment_id", 200, nullable=True),
        _number("reversed_at_ms", nullable=True),
        _word("error", 500, nullable=True),
        _number("ended_at_ms", nullable=True),
        sa.PrimaryKeyConstraint("top_up_id"),
        **_OPTIONS,
    )
