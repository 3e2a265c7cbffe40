"""Version 7: an endpoint keeps every secret that still signs, not the last one alone. Each step looks first whether it
was done.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_OLD = ("old_secret", "old_secret_until_ms")


def upgrade() -> None:
    """Adds the column, fills it, and drops the two that it replaces."""
    bind = op.get_bind()
    present = {column["name"] for column in sa.inspect(bind).get_columns("webhooks")}
    if "old_secrets" not in present:
        op.add_column("webhooks", sa.Column("old_secrets", sa.JSON(none_as_null=True), nullable=True))
    if set(_OLD) <= present:
        names = ("webhook_id", *_OLD)
        webhooks = sa.table("webhooks", *map(sa.column, names), sa.column("old_secrets", sa.JSON()))
        asked = sa.select(*(webhooks.c[name] for name in names)).where(webhooks.c.old_secret.is_not(None))
        kept = bind.execute(asked).all()
        for webhook_id, secret, until_ms in kept:
            same = webhooks.c.webhook_id == webhook_id
            bind.execute(webhooks.update().where(same).values(old_secrets=[[secret, until_ms]]))
    for name in _OLD:
        if name in present:
            op.drop_column("webhooks", name)
