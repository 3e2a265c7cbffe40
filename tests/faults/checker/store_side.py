"""What the store has, by SQL of the checker's own."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from typing import Any

import asyncpg

from tests.faults.checker.evidence import Balance, Row, Side

_ROWS = """SELECT seq, epoch, transaction_id, kind, user_id, amount, available_after, reserved_after, debt_after,
 created_at_ms, operation_id, reservation_id, reference, detail FROM transactions ORDER BY seq"""
_ACCOUNTS = "SELECT user_id, available, reserved, debt, granted, expired, voided, overdraft_limit, spent FROM accounts"
_GRANTS = "SELECT user_id, grant_id, remaining, reserved FROM grants WHERE remaining + reserved > 0 AND NOT pending"
_HOLDS = "SELECT reservation_id, user_id, amount FROM reservations WHERE state = 'open'"
_WATERMARK = "SELECT epoch, seq, head FROM watermarks WHERE partition = 0"
_GIVEN = "SELECT user_id, given FROM subscriptions"
_QUARANTINE = "SELECT seq FROM quarantine"


class Database:
    """Asks a store at a URL, SQLite or PostgreSQL. Not for use inside an event loop."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, *statements: str) -> list[Sequence[Sequence[Any]]]:
        """The rows of each statement, all as of one moment."""
        if self._url.startswith("sqlite"):
            connection = sqlite3.connect(self._url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
            try:
                connection.execute("BEGIN")
                return [connection.execute(statement).fetchall() for statement in statements]
            finally:
                connection.close()
        return asyncio.run(self._ask_postgres(statements))

    async def _ask_postgres(self, statements: Sequence[str]) -> list[Sequence[Sequence[Any]]]:
        connection = await asyncpg.connect(self._url, timeout=30)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return [[tuple(row) for row in await connection.fetch(statement)] for statement in statements]
        finally:
            await connection.close()


def read_store(database: Database) -> tuple[list[Row], Side, dict[str, list[str]], list[int]]:
    """Transactions, the side of the store, what subscriptions gave, and the seqs in quarantine."""
    rows, accounts, grants, holds, watermark, given, quarantine = database.ask(
        _ROWS, _ACCOUNTS, _GRANTS, _HOLDS, _WATERMARK, _GIVEN, _QUARANTINE
    )
    side = Side(
        accounts={user: Balance(*map(int, figures)) for user, *figures in accounts},
        grants={(user, grant): (int(left), int(held)) for user, grant, left, held in grants},
        holds={hold: (user, int(amount)) for hold, user, amount in holds},
    )
    for epoch, seq, head in watermark:
        side.place = (int(epoch), int(seq), head)
    return (
        [_row(row) for row in rows],
        side,
        {user: _given(text) for user, text in given},
        [seq for (seq,) in quarantine],
    )


def watermark_of(database: Database) -> tuple[int, int]:
    """Epoch and seq that the store has reached."""
    ((epoch, seq, _),) = database.ask(_WATERMARK)[0] or ((0, 0, "-"),)
    return int(epoch), int(seq)


def grant_names(database: Database) -> set[tuple[str, str]]:
    """Every grant that has a row, pending ones too."""
    return {(user, grant) for user, grant in database.ask("SELECT user_id, grant_id FROM grants")[0]}


def _row(row: Sequence[Any]) -> Row:
    *plain, key, reservation, reference, detail = row
    found = json.loads(detail) if isinstance(detail, str) else detail
    return Row._make([*plain, key or "", reservation or "", reference or "", found or {}])


def _given(text: str | None) -> list[str]:
    return [one[0] for one in json.loads(text or "[]") or []]
