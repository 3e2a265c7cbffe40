"""What makes a refund: the rows of a charge, as the ledger has them, and how much of it is given back.

The operation is declared with the others (meter/engine/operations.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from meter.engine.answers import Operation, drawn
from meter.engine.asked import UNKEYED, Asked, fingerprint_of

NO_RESTRICTIONS: Mapping[str, str] = MappingProxyType({})


class Charged(NamedTuple):
    """A row of a charge, as the ledger has it: who paid how much from which grants, when; what was refunded of it.
    `only` are those of these grants that are restricted, and their tags as text.
    """

    user_id: str
    transaction_id: str
    amount: int
    draws: tuple[tuple[str, int], ...]
    refunded: int = 0
    at_ms: int = 0
    seq: int = 0
    only: Mapping[str, str] = NO_RESTRICTIONS

    @property
    def drawn(self) -> str:
        """Its draws as a script reads them."""
        named = [(f"{name}={self.only[name]}" if name in self.only else name, part) for name, part in self.draws]
        return drawn(named)


def refund(
    user_id: str,
    transaction_id: str,
    amount: int | None,
    *,
    charged: int,
    refunded: int,
    draws: tuple[tuple[str, int], ...],
    charged_at_ms: int = 0,
    charged_seq: int = 0,
    asked: Asked = UNKEYED,
) -> Operation:
    """Gives back part of a charge of one row; what was charged, when and from where comes from the ledger."""
    row = Charged(user_id, transaction_id, charged, draws, refunded, charged_at_ms, charged_seq)
    return refund_rows(user_id, transaction_id, amount, charges=[row], path=user_id, asked=asked)


def refund_rows(
    user_id: str,
    transaction_id: str,
    amount: int | None,
    *,
    charges: Sequence[Charged],
    path: str,
    asked: Asked = UNKEYED,
) -> Operation:
    """Gives back part of a charge: `charges` are its rows, one for each who paid, that of the path first."""
    own = (user_id, transaction_id, "" if amount is None else str(amount))
    fingerprint = fingerprint_of("refund", own, asked.body) if asked.key else ""
    rows = [
        part
        for one in charges
        for part in (*one[:2], str(one.amount), str(one.refunded), one.drawn, str(one.at_ms), str(one.seq))
    ]
    return ("refund", asked.key, fingerprint, asked.row, *own, path, str(len(charges)), *rows)
