"""Version 5: terms of plans over time, what was given, and errands. Each step looks first whether it was done."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

_INNODB = {"engine": "InnoDB", "default_charset": "utf8mb4", "collate": "utf8mb4_bin"}
_OPTIONS: dict[str, Any] = {f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _INNODB.items()}


def _word(name: str, length: int, *, nullable: bool = False) -> sa.Column[Any]:
    by_bytes = postgresql.VARCHAR(length, collation="C")
    return sa.Column(name, sa.String(length).with_variant(by_bytes, "postgresql"), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable, autoincrement=False)


def _json(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=True)


def _make_plan_terms() -> None:
    op.create_table(
        "plan_terms",
        _word("plan_id", 128),
        _number("version"),
        _number("from_ms"),
        _number("credit_limit"),
        _word("billing_period", 32),
        _number("validity_days", nullable=True),
        _number("rollover_max", nullable=True),
        _number("rollover_percent", nullable=True),
        _number("rollover_days", nullable=True),
        _number("priority"),
        sa.PrimaryKeyConstraint("plan_id", "version"),
        **_OPTIONS,
    )


def _make_errands() -> None:
    op.create_table(
        "errands",
        _number("version"),
        _word("errand_id", 128),
        _word("kind", 32),
        _word("user_id", 128),
        _json("grants"),
        _word("state", 32),
        _number("created_at_ms"),
        sa.PrimaryKeyConstraint("errand_id"),
        **_OPTIONS,
    )


def upgrade() -> None:
    """Makes the tables and the columns; what a mid-period change granted is in `given` from now on."""
    present = sa.inspect(op.get_bind())
    if not present.has_table("plan_terms"):
        _make_plan_terms()
    if not present.has_table("errands"):
        _make_errands()
    indexes = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("errands")}
    if "ix_errands_state_created_at_ms" not in indexes:
        op.create_index("ix_errands_state_created_at_ms", "errands", ["state", "created_at_ms"])
    columns = {column["name"] for column in present.get_columns("subscriptions")}
    for column in (
        _word("fault", 500, nullable=True),
        _word("billing_period", 32, nullable=True),
        _json("given"),
        _json("metadata"),
    ):
        if column.name not in columns:
            op.add_column("subscriptions", column)
    for name in ("owed", "owed_version"):
        if name in columns:
            op.drop_column("subscriptions", name)
