"""Version 12: API keys, and what a reservation keeps of the one that it was asked for by. Every step looks first
whether it was done.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"

_INNODB = {"engine": "InnoDB", "default_charset": "utf8mb4", "collate": "utf8mb4_bin"}
_OPTIONS: dict[str, Any] = {f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _INNODB.items()}


def _word(name: str, length: int, *, nullable: bool = False) -> sa.Column[Any]:
    by_bytes = postgresql.VARCHAR(length, collation="C")
    return sa.Column(name, sa.String(length).with_variant(by_bytes, "postgresql"), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable, autoincrement=False)


def _json(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=True)


def _make_table(present: sa.Inspector) -> None:
    if not present.has_table("api_keys"):
        columns = [_number("version"), _word("key_id", 24), _word("hash", 64), _word("user_id", 128, nullable=True)]
        columns += [_number("partition"), _word("name", 200, nullable=True), _json("scopes"), _json("models")]
        columns += [
            _number("expires_at_ms", nullable=True),
            _word("state", 32),
            _word("rotated_from", 24, nullable=True),
        ]
        times = [_number("created_at_ms"), _number("updated_at_ms")]
        op.create_table("api_keys", *columns, *times, sa.PrimaryKeyConstraint("key_id"), **_OPTIONS)


def _make_indexes() -> None:
    known = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("api_keys")}
    with_user = sa.text("user_id IS NOT NULL")
    wanted: dict[tuple[str, ...], dict[str, Any]] = {
        ("user_id", "created_at_ms", "key_id"): {"postgresql_where": with_user, "sqlite_where": with_user},
        ("created_at_ms", "key_id"): {},
        ("partition", "key_id"): {},
        ("state", "created_at_ms"): {},
    }
    for names, options in wanted.items():
        name = f"ix_api_keys_{'_'.join(names)}"
        if name not in known:
            op.create_index(name, "api_keys", list(names), **options)


def upgrade() -> None:
    """Makes the table and the column."""
    present = sa.inspect(op.get_bind())
    _make_table(present)
    _make_indexes()
    if "api_key" not in {column["name"] for column in present.get_columns("reservations")}:
        op.add_column("reservations", _word("api_key", 2000, nullable=True))
