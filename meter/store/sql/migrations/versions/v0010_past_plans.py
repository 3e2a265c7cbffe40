"""Version 10: which plans users had, and since when they have theirs. What is known of before is the last plan of each
subscription. Every step looks first whether it was done.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"

_INNODB = {"engine": "InnoDB", "default_charset": "utf8mb4", "collate": "utf8mb4_bin"}
_OPTIONS: dict[str, Any] = {f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _INNODB.items()}

_PLANS_THAT_ENDED = sa.text(
    """
    INSERT INTO past_plans (user_id, plan_group, from_ms, until_ms, plan_id)
    SELECT user_id, plan_group, created_at_ms, updated_at_ms, plan_id FROM subscriptions
    WHERE state = 'ended' AND created_at_ms < updated_at_ms AND NOT EXISTS (
        SELECT 1 FROM past_plans AS kept
        WHERE kept.user_id = subscriptions.user_id AND kept.plan_group = subscriptions.plan_group
    )
    """
)


def _word(name: str, length: int) -> sa.Column[Any]:
    by_bytes = postgresql.VARCHAR(length, collation="C")
    return sa.Column(name, sa.String(length).with_variant(by_bytes, "postgresql"), nullable=False)


def _number(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable, autoincrement=False)


def upgrade() -> None:
    """Makes the table and the column."""
    present = sa.inspect(op.get_bind())
    if not present.has_table("past_plans"):
        columns = [_word("user_id", 128), _word("plan_group", 32), _number("from_ms"), _number("until_ms")]
        key = sa.PrimaryKeyConstraint("user_id", "plan_group", "from_ms")
        op.create_table("past_plans", *columns, _word("plan_id", 128), key, **_OPTIONS)
    if "plan_since_ms" not in {column["name"] for column in present.get_columns("subscriptions")}:
        op.execute(_PLANS_THAT_ENDED)
        op.add_column("subscriptions", _number("plan_since_ms", nullable=True))
