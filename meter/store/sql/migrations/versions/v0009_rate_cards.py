"""Version 9: rate cards, what accounts say of prices, and what a reservation was priced by; answers have room for a
price. Every step looks first whether it was done.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"

_INNODB = {"engine": "InnoDB", "default_charset": "utf8mb4", "collate": "utf8mb4_bin"}
_OPTIONS: dict[str, Any] = {f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _INNODB.items()}
_ANSWER_LENGTH = 3000


def _word_type(length: int) -> sa.String:
    by_bytes = postgresql.VARCHAR(length, collation="C")
    return sa.String(length).with_variant(by_bytes, "postgresql")


def _word(name: str, length: int, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, _word_type(length), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable, autoincrement=False)


def _make_tables(present: sa.Inspector) -> None:
    own = ("rate_card_id", "number")
    if not present.has_table("rate_cards"):
        columns = [_number("version"), _word("rate_card_id", 128), _number("latest"), _word("state", 32)]
        times = [_number("created_at_ms"), _number("updated_at_ms")]
        op.create_table("rate_cards", *columns, *times, sa.PrimaryKeyConstraint("rate_card_id"), **_OPTIONS)
    if not present.has_table("rate_card_versions"):
        body = sa.Column("body", sa.JSON(none_as_null=True), nullable=True)
        columns = [_word("rate_card_id", 128), _number("number"), body, _number("created_at_ms")]
        op.create_table("rate_card_versions", *columns, sa.PrimaryKeyConstraint(*own), **_OPTIONS)
    if not present.has_table("rate_card_activations"):
        columns = [_word("rate_card_id", 128), _number("number"), _number("rate_card_version")]
        times = [_number("effective_at_ms"), _number("created_at_ms")]
        op.create_table("rate_card_activations", *columns, *times, sa.PrimaryKeyConstraint(*own), **_OPTIONS)


def _add(present: sa.Inspector, table: str, *columns: sa.Column[Any]) -> None:
    names = {column["name"] for column in present.get_columns(table)}
    for column in columns:
        if column.name not in names:
            op.add_column(table, column)


def _widen(present: sa.Inspector, table: str) -> None:
    """SQLite has no lengths."""
    if op.get_bind().dialect.name == "sqlite":
        return
    [kind] = [column["type"] for column in present.get_columns(table) if column["name"] == "answer"]
    if getattr(kind, "length", _ANSWER_LENGTH) != _ANSWER_LENGTH:
        op.alter_column(table, "answer", type_=_word_type(_ANSWER_LENGTH), existing_nullable=True)


def upgrade() -> None:
    """Makes the tables and the columns."""
    present = sa.inspect(op.get_bind())
    _make_tables(present)
    _add(present, "accounts", _word("rate_card", 128, nullable=True), _number("price_multiplier", nullable=True))
    _add(present, "reservations", _word("price", 2000, nullable=True))
    for table in ("operations", "reservations"):
        _widen(present, table)
