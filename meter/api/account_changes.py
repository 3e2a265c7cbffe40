"""What a transaction of the kind `account` changed: what was there before, and what is there since."""

from __future__ import annotations

from collections.abc import Mapping

from meter.amount import AmountScale
from meter.engine.outbox import Kind
from meter.ledger.history import Filter, History
from meter.store.rows import TransactionRow

LOOKED_BACK_MAX = 100
"""Earlier changes of an account that are looked through for what was there before."""
_BEFORE: Mapping[str, object] = {
    "overdraft_limit": 0,
    "suspended": False,
    "low_credit_thresholds": "-",
    "rate_card": None,
    "price_multiplier": None,
    "profile": None,
}
"""What a new account has, by the names of the ledger."""
_NAMES = {"profile": "metadata"}


async def changes_of(row: TransactionRow, history: History, scale: AmountScale) -> dict[str, list[object]]:
    """Each member that is not what it was, as [before, since]."""
    since = row.detail if isinstance(row.detail, dict) else {}
    wanted = Filter(kinds=(Kind.ACCOUNT.value,), before_seq=row.seq)
    before: dict[str, object] = {}
    for earlier in await history.page(row.user_id, wanted, LOOKED_BACK_MAX):
        detail = earlier.detail if isinstance(earlier.detail, dict) else {}
        for name in _BEFORE:
            if name in detail:
                before.setdefault(name, detail[name])
    return {
        _NAMES.get(name, name): [_shown(name, was, scale), _shown(name, since[name], scale)]
        for name, new in _BEFORE.items()
        if name in since and (was := before.get(name, new)) != since[name]
    }


def _shown(name: str, value: object, scale: AmountScale) -> object:
    """A member as the API has it."""
    if name == "overdraft_limit":
        return _credits(value, scale)
    if name == "low_credit_thresholds":
        return [_credits(part, scale) for part in str(value).split(",") if part != "-"]
    if name == "price_multiplier" and value is not None:
        return int(str(value)) / 10**6
    return value


def _credits(units: object, scale: AmountScale) -> float:
    return float(scale.credits(int(str(units))))
