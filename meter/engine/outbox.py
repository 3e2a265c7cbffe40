"""Outbox entries: the ledger rows as the scripts write them (the format is in lua/state/outbox.lua)."""

from __future__ import annotations

from typing import NamedTuple

import orjson

ENTRY_VERSION = 1

CHARGES = frozenset({"deduct", "commit"})


class Draw(NamedTuple):
    """What a transaction did to one grant: the amount, and what the grant then had left and reserved (units)."""

    grant_id: str
    amount: int
    remaining: int
    reserved: int


class Entry(NamedTuple):
    """One transaction. Amounts are units; the three balances are those after it."""

    epoch: int
    seq: int
    prev: str
    transaction_id: str
    operation_id: str
    kind: str
    user_id: str
    amount: int
    draws: tuple[Draw, ...]
    available: int
    reserved: int
    debt: int
    created_at_ms: int
    detail: dict[str, object]


def parse_entry(text: bytes) -> Entry:
    """Reads an entry. Raises `ValueError` for anything that lua/state/outbox.lua did not write."""
    fields = orjson.loads(text)
    if not isinstance(fields, list) or len(fields) != 15 or fields[0] != ENTRY_VERSION:
        raise ValueError(f"not an outbox entry of version {ENTRY_VERSION}: {text[:80]!r}")
    fields[9] = tuple([Draw(*draw) for draw in fields[9]])
    return Entry._make(fields[1:])


def seq_of(transaction_id: str) -> tuple[int, int] | None:
    """(partition, seq) that a transaction_id names; None when it is none of ours."""
    parts = transaction_id.split("-")
    if len(parts) != 4 or not (parts[0].isdigit() and parts[1].isdigit()):
        return None
    return int(parts[0]), int(parts[1])
