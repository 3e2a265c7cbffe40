"""Rows and holds of a path that pools pay for too (lua/state/pool.lua): one for each who pays, the path's first."""

from __future__ import annotations

import re
from collections.abc import Mapping

from meter.engine.outbox import seq_of

ROWS, GROUP, PATH, IN_ALL = "rows", "group", "path", "in_all"
"""Members of rows: how many follow the first, the transaction_id of that, the path; what a hold with its parts held,
and was charged.
"""
_PART = re.compile(r"(.+)~([1-6])")


def is_part(reservation_id: str) -> bool:
    """Whether a hold is a pool's part of another one."""
    return _PART.fullmatch(reservation_id) is not None


def whole_of(reservation_id: str) -> str:
    """The reservation that a hold is a part of; itself of one that is none."""
    found = _PART.fullmatch(reservation_id)
    return reservation_id if found is None else found[1]


def path_of(user_id: str, detail: object) -> str:
    """Whose charge a row is, whoever paid it."""
    path = detail.get(PATH) if isinstance(detail, Mapping) else None
    return user_id if path is None else str(path)


def first_of(transaction_id: str, detail: object) -> str:
    """The transaction_id of the first of the rows that a row is one of: its own, mostly."""
    group = detail.get(GROUP) if isinstance(detail, Mapping) else None
    return transaction_id if group is None else str(group)


def following(transaction_id: str, detail: object) -> list[str]:
    """The transaction_ids of the rows that follow the first of several who paid."""
    rows = detail.get(ROWS) if isinstance(detail, Mapping) else None
    place = seq_of(transaction_id)
    if not isinstance(rows, int) or place is None:
        return []
    partition, _, sender, batch = transaction_id.split("-")
    return [f"{partition}-{place[1] + n}-{sender}-{batch}" for n in range(1, rows + 1)]


def in_all(detail: Mapping[str, object], held: int, charged: int) -> tuple[int, int]:
    """What a reservation held, and was charged, with its parts, by the row that ends it."""
    told = detail.get(IN_ALL)
    return (int(told[0]), int(told[1])) if isinstance(told, list) else (held, charged)
