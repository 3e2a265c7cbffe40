"""Version 1: every table of the ledger. Frozen: a later change of the models is a version of its own.

Every step looks first whether it was done, because MySQL commits each of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

revision = "0001"
down_revision = None

_INNODB = {"engine": "InnoDB", "default_charset": "utf8mb4", "collate": "utf8mb4_bin"}
_OPTIONS: dict[str, Any] = {f"{name}_{key}": value for name in ("mysql", "mariadb") for key, value in _INNODB.items()}


def _word(name: str, length: int, *, nullable: bool = False) -> sa.Column[Any]:
    by_bytes = postgresql.VARCHAR(length, collation="C")
    return sa.Column(name, sa.String(length).with_variant(by_bytes, "postgresql"), nullable=nullable)


def _text(name: str) -> sa.Column[Any]:
    kind = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
    return sa.Column(name, kind.with_variant(mysql.LONGTEXT(), "mysql", "mariadb"), nullable=False)


def _number(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable, autoincrement=False)


def _flag(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def _json(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=True)


def _create(
    table: str,
    key: Sequence[str],
    columns: Sequence[sa.Column[Any]],
    *,
    unique: Sequence[str] = (),
    indexes: Sequence[Sequence[str]] = (),
) -> None:
    """Makes a table and its indexes, or what is missing of them."""
    present = sa.inspect(op.get_bind())
    if not present.has_table(table):
        constraints: list[sa.Constraint] = [sa.PrimaryKeyConstraint(*key)]
        if unique:
            constraints.append(sa.UniqueConstraint(*unique, name=f"uq_{table}_{'_'.join(unique)}"))
        op.create_table(table, *columns, *constraints, **_OPTIONS)
        names = set()
    else:
        names = {index["name"] for index in present.get_indexes(table)}
    nullable = {column.name for column in columns if column.nullable}
    for index in indexes:
        name = f"ix_{table}_{'_'.join(index)}"
        if name not in names:
            there = sa.text(f"{index[0]} IS NOT NULL") if index[0] in nullable else None
            where: dict[str, Any] = {} if there is None else {"postgresql_where": there, "sqlite_where": there}
            op.create_index(name, table, list(index), **where)


def _create_transactions() -> None:
    _create(
        "transactions",
        ("transaction_id",),
        [
            _word("transaction_id", 64),
            _number("partition"),
            _number("epoch"),
            _number("seq"),
            _word("kind", 32),
            _word("user_id", 128),
            _number("amount"),
            _number("available_after"),
            _number("reserved_after"),
            _number("debt_after"),
            _number("created_at_ms"),
            _word("operation_id", 400, nullable=True),
            _word("reservation_id", 128, nullable=True),
            _word("refund_of", 64, nullable=True),
            _json("draws"),
            _json("detail"),
            _word("description", 500, nullable=True),
            _json("metadata"),
        ],
        unique=("partition", "seq"),
        indexes=[("user_id", "seq"), ("refund_of",)],
    )


def _create_accounts() -> None:
    _create(
        "accounts",
        ("user_id",),
        [
            _word("user_id", 128),
            _number("partition"),
            _number("available"),
            _number("reserved"),
            _number("debt"),
            _number("granted"),
            _number("spent"),
            _number("expired"),
            _number("voided"),
            _number("overdraft_limit"),
            _flag("suspended"),
            _word("low_credit_thresholds", 200),
            _json("profile"),
            _number("last_seq"),
            _number("updated_at_ms"),
        ],
        indexes=[("partition", "user_id")],
    )


def _create_grants() -> None:
    _create(
        "grants",
        ("user_id", "grant_id"),
        [
            _word("user_id", 128),
            _word("grant_id", 128),
            _number("partition"),
            _number("amount"),
            _number("remaining"),
            _number("reserved"),
            _number("priority"),
            _number("effective_at_ms"),
            _number("expires_at_ms"),
            _number("created_at_ms"),
            _word("source", 32),
            _word("state", 32),
            _flag("pending"),
            _word("transaction_id", 64, nullable=True),
            _word("operation_id", 400, nullable=True),
            _word("fingerprint", 64, nullable=True),
            _word("description", 500, nullable=True),
            _json("metadata"),
            _number("last_seq"),
        ],
        unique=("partition", "operation_id"),
        indexes=[("pending", "created_at_ms"), ("user_id", "expires_at_ms"), ("state", "expires_at_ms")],
    )


def _create_reservations() -> None:
    _create(
        "reservations",
        ("reservation_id",),
        [
            _word("reservation_id", 128),
            _word("user_id", 128),
            _number("partition"),
            _number("amount"),
            _number("charged"),
            _word("state", 32),
            _json("draws"),
            _number("expires_at_ms"),
            _number("created_at_ms"),
            _word("at_end", 32),
            _number("ended_at_ms", nullable=True),
            _number("requested"),
            _word("answer", 1000, nullable=True),
            _number("last_seq"),
        ],
        indexes=[
            ("user_id", "state"),
            ("user_id", "created_at_ms", "reservation_id"),
            ("partition", "ended_at_ms", "reservation_id"),
        ],
    )


def _create_watermarks() -> None:
    _create(
        "watermarks",
        ("partition",),
        [_number("partition"), _number("epoch"), _number("seq"), _word("head", 64), _number("updated_at_ms")],
    )


def _create_operations() -> None:
    _create(
        "operations",
        ("partition", "operation_id"),
        [
            _number("partition"),
            _word("operation_id", 400),
            _word("transaction_id", 64),
            _word("fingerprint", 64, nullable=True),
            _word("answer", 1000, nullable=True),
            _number("created_at_ms"),
        ],
        indexes=[("partition", "created_at_ms", "operation_id")],
    )


def _create_ledger_events() -> None:
    _create(
        "ledger_events",
        ("event_id",),
        [
            _word("event_id", 64),
            _word("kind", 32),
            _word("user_id", 128, nullable=True),
            _word("message", 500),
            _json("detail"),
            _number("created_at_ms"),
        ],
        indexes=[("user_id", "created_at_ms"), ("kind", "created_at_ms"), ("created_at_ms", "event_id")],
    )


def _create_alert_intents() -> None:
    _create(
        "alert_intents",
        ("intent_id",),
        [
            _number("version"),
            _word("intent_id", 128),
            _word("kind", 32),
            _word("user_id", 128),
            _json("payload"),
            _number("created_at_ms"),
            _word("state", 32),
            _number("next_attempt_at_ms"),
        ],
        indexes=[("state", "next_attempt_at_ms"), ("user_id", "created_at_ms")],
    )


def _create_plans() -> None:
    _create(
        "plans",
        ("plan_id",),
        [
            _number("version"),
            _word("plan_id", 128),
            _word("name", 200),
            _word("description", 500, nullable=True),
            _number("credit_limit"),
            _word("price", 40),
            _word("billing_period", 32),
            _number("validity_days", nullable=True),
            _number("priority"),
            _word("plan_group", 32),
            _flag("active"),
            _flag("deleted"),
            _word("fingerprint", 64, nullable=True),
            _number("created_at_ms"),
            _number("updated_at_ms"),
        ],
    )


def _create_subscriptions() -> None:
    _create(
        "subscriptions",
        ("user_id", "plan_group"),
        [
            _number("version"),
            _word("user_id", 128),
            _word("plan_group", 32),
            _word("subscription_id", 128),
            _word("plan_id", 128),
            _word("state", 32),
            _flag("auto_renew"),
            _number("anchor_at_ms"),
            _word("time_zone", 64),
            _number("period"),
            _number("period_started_at_ms"),
            _number("next_period_at_ms"),
            _word("next_plan_id", 128, nullable=True),
            _number("owed"),
            _number("owed_version"),
            _word("unspent", 32),
            _number("created_at_ms"),
            _number("updated_at_ms"),
        ],
        indexes=[("state", "next_period_at_ms")],
    )


def _create_webhooks() -> None:
    _create(
        "webhooks",
        ("webhook_id",),
        [
            _number("version"),
            _word("webhook_id", 128),
            _word("url", 2000),
            _word("description", 500, nullable=True),
            _json("kinds"),
            _word("secret", 200),
            _word("old_secret", 200, nullable=True),
            _number("old_secret_until_ms"),
            _word("state", 32),
            _number("created_at_ms"),
            _number("updated_at_ms"),
        ],
    )


def _create_deliveries() -> None:
    _create(
        "deliveries",
        ("delivery_id",),
        [
            _number("version"),
            _word("delivery_id", 128),
            _word("intent_id", 128),
            _word("target", 128),
            _word("kind", 32),
            _word("user_id", 128),
            _json("payload"),
            _number("created_at_ms"),
            _word("state", 32),
            _number("attempts"),
            _number("next_attempt_at_ms"),
            _number("attempted_at_ms", nullable=True),
            _number("status", nullable=True),
            _word("error", 500, nullable=True),
        ],
        indexes=[("state", "next_attempt_at_ms"), ("user_id", "created_at_ms"), ("created_at_ms", "delivery_id")],
    )


def _create_quarantine() -> None:
    _create(
        "quarantine",
        ("partition", "seq"),
        [_number("partition"), _number("seq"), _text("text"), _word("reason", 500), _number("created_at_ms")],
    )


def _create_deployment() -> None:
    _create("deployment", ("name",), [_word("name", 32), _word("value", 200)])


def upgrade() -> None:
    """Makes the tables."""
    _create_transactions()
    _create_accounts()
    _create_grants()
    _create_reservations()
    _create_watermarks()
    _create_operations()
    _create_ledger_events()
    _create_alert_intents()
    _create_plans()
    _create_subscriptions()
    _create_webhooks()
    _create_deliveries()
    _create_quarantine()
    _create_deployment()
