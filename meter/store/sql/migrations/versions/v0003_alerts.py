"""Version 3: alerts are called alerts, and the deliveries of one target are found by an index. Every step looks first
whether it was done.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_OLD, _NEW = "alert_intents", "alerts"
_ALERT_INDEXES = (("state", "next_attempt_at_ms"), ("user_id", "created_at_ms"))


def _rename_column(table: str) -> None:
    """By SQL, which is the same everywhere: alembic would make the whole table anew on SQLite."""
    if "intent_id" in {present["name"] for present in sa.inspect(op.get_bind()).get_columns(table)}:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN intent_id TO alert_id")


def _rename_table() -> None:
    present = sa.inspect(op.get_bind())
    if not present.has_table(_OLD):
        return
    if present.has_table(_NEW):
        op.drop_table(_OLD)  # a schema that was made by hand had `alerts`, so version 1 made an empty one beside it
    else:
        op.rename_table(_OLD, _NEW)


def _index(table: str, *columns: str) -> None:
    """The old one goes first: MariaDB warns of two on the same columns, and will refuse them."""
    name = f"ix_{table}_{'_'.join(columns)}"
    names = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}
    old = name.replace(f"_{_NEW}_", f"_{_OLD}_")
    if old != name and old in names:
        op.drop_index(old, table)
    if name not in names:
        op.create_index(name, table, list(columns))


def upgrade() -> None:
    """Renames the table and its key, and adds the index."""
    _rename_table()
    for columns in _ALERT_INDEXES:
        _index(_NEW, *columns)
    for table in (_NEW, "deliveries"):
        _rename_column(table)
    _index("deliveries", "target", "state", "next_attempt_at_ms")
