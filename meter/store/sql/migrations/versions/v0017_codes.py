"""Version 17: promo codes, their texts and who redeemed them. Every step looks first whether it was done."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0017"
down_revision = "0016"

_INNODB = {"engine": "InnoDB", "default_charset": "utf8mb4", "collate": "utf8mb4_bin"}
_OPTIONS: dict[str, Any] = {f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _INNODB.items()}


def _word(name: str, length: int, *, nullable: bool = False) -> sa.Column[Any]:
    by_bytes = postgresql.VARCHAR(length, collation="C")
    return sa.Column(name, sa.String(length).with_variant(by_bytes, "postgresql"), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable, autoincrement=False)


def _codes() -> list[sa.Column[Any]]:
    only = sa.Column("only", sa.JSON(none_as_null=True), nullable=True)
    given = [_number("version"), _word("code_id", 32), _number("amount"), _number("priority"), only]
    bounds = [_number("valid_days", nullable=True), _number("max_total"), _number("max_per_user"), _number("redeemed")]
    times = [_number("starts_at_ms"), _number("ends_at_ms", nullable=True), _word("state", 32)]
    told = [_word("description", 500, nullable=True), _number("created_at_ms"), _number("updated_at_ms")]
    return [*given, *bounds, *times, *told]


def upgrade() -> None:
    """Makes the tables."""
    present = sa.inspect(op.get_bind())
    if not present.has_table("codes"):
        op.create_table("codes", *_codes(), sa.PrimaryKeyConstraint("code_id"), **_OPTIONS)
    if not present.has_table("code_texts"):
        text = [_word("hmac", 64), _word("code_id", 32)]
        op.create_table("code_texts", *text, sa.PrimaryKeyConstraint("hmac"), **_OPTIONS)
    if not present.has_table("redemptions"):
        columns = [_word("code_id", 32), _word("user_id", 128), _number("number"), _word("grant_id", 128)]
        key = sa.PrimaryKeyConstraint("code_id", "user_id", "number")
        op.create_table("redemptions", *columns, _number("created_at_ms"), key, **_OPTIONS)
    _make_index("codes", "created_at_ms", "code_id")
    _make_index("redemptions", "user_id", "created_at_ms")


def _make_index(table: str, *names: str) -> None:
    name = f"ix_{table}_{'_'.join(names)}"
    if name not in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}:
        op.create_index(name, table, list(names))
