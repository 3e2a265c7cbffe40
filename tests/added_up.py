"""What the ledger alone says about an account: its entries added up, each checked against the balances it states."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.invariants import Account, Entry

_CHARGES = ("deduct", "commit")


@dataclass
class Fold:
    """One account, folded. `free` is available - debt; `forfeits` are announced and not booked as expired yet."""

    free: int = 0
    debt: int = 0
    reserved: int = 0
    limit: int = 0
    forfeits: int = 0
    counters: Counter[str] = field(default_factory=Counter)
    grants: dict[str, tuple[int, int]] = field(default_factory=dict)
    scheduled: dict[str, int] = field(default_factory=dict)
    holds: dict[str, int] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    charged: dict[str, int] = field(default_factory=dict)
    last: Entry | None = None

    def add(self, entry: Entry) -> None:
        """Adds the next entry and checks it."""
        assert (entry.amount >= 0 or entry.kind == "adjust") and all(part >= 0 for _, part, _, _ in entry.draws), entry
        assert self.forfeits == 0 or entry.kind == "grant_expired", f"a forfeit was not booked before {entry}"
        self.last = entry
        getattr(self, f"_{entry.kind}")(entry)
        for grant_id, _, remaining, reserved in entry.draws:
            self.grants[grant_id] = (remaining, reserved)
        restricted = int(entry.detail.get("restricted", 0))
        assert (entry.available + restricted - entry.debt, entry.reserved) == (self.free, self.reserved), entry
        assert self.forfeits or entry.debt == 0 or entry.available == 0, entry
        assert entry.debt <= max(self.debt, self.limit), f"debt beyond the limit: {entry}"
        self.debt = entry.debt
        if entry.kind in _CHARGES:
            self.charged[entry.transaction] = entry.amount

    def check(self, a: Account) -> None:
        """Whether the account in Redis is what the ledger adds up to."""
        assert self.forfeits == 0, a.user
        free = a.available + sum(part for _, part in a.restrictions.values())
        assert (free - a.debt, a.reserved, a.debt) == (self.free, self.reserved, self.debt), a.user
        for name in ("granted", "scheduled", "spent", "expired", "voided"):
            assert getattr(a, name) == self.counters[name], (a.user, name)
        assert a.overdraft_limit == self.limit, a.user
        assert {hold_id: hold.amount for hold_id, hold in a.holds.items()} == self.holds, a.user
        for g in a.grants.values():
            assert self.grants[g.id] == (g.remaining, g.reserved), (a.user, g)

    def _credit(self, entry: Entry, amount: int) -> None:
        """Credits come in: what a draw names of them went into debt."""
        self.free += amount
        assert sum(part for _, part, _, _ in entry.draws) == self.debt - entry.debt, entry

    def _grant(self, entry: Entry) -> None:
        grant_id = entry.detail["grant_id"]
        if entry.detail["effective_at"] > entry.created:
            self.scheduled[grant_id] = entry.amount
            self.counters["scheduled"] += entry.amount
            self._credit(entry, 0)
        else:
            self.counters["granted"] += entry.amount
            self._credit(entry, entry.amount)

    def _adjust(self, entry: Entry) -> None:
        """Credits come in as a grant, or free ones are taken."""
        if entry.amount > 0:
            self._grant(entry)
            return
        self.counters["granted"] += entry.amount
        self.free += entry.amount
        assert sum(part for _, part, _, _ in entry.draws) == -entry.amount, entry
        assert entry.debt == self.debt, entry

    def _grant_started(self, entry: Entry) -> None:
        assert self.scheduled.pop(entry.detail["grant_id"]) == entry.amount, entry
        self.counters["scheduled"] -= entry.amount
        self.counters["granted"] += entry.amount
        self._credit(entry, entry.amount)

    def _charge(self, entry: Entry) -> None:
        """Credits are spent: from the grants that the draws name, the rest is debt."""
        self.counters["spent"] += entry.amount
        on_debt = max(0, entry.debt - self.debt)
        assert sum(part for _, part, _, _ in entry.draws) + on_debt == entry.amount, entry

    def _deduct(self, entry: Entry) -> None:
        self.free -= entry.amount
        self._charge(entry)

    def _reserve(self, entry: Entry) -> None:
        hold_id = entry.detail["reservation_id"]
        assert hold_id not in self.holds, entry
        self.holds[hold_id] = 0
        self._extend(entry)

    def _extend(self, entry: Entry) -> None:
        self.holds[entry.detail["reservation_id"]] += entry.amount
        self.free -= entry.amount
        self.reserved += entry.amount
        assert sum(part for _, part, _, _ in entry.draws) == entry.amount, entry

    def _end(self, entry: Entry, state: str) -> int:
        """A hold ends, once; answers what it held."""
        hold_id = entry.detail["reservation_id"]
        held = self.holds.pop(hold_id)
        self.ended[hold_id] = state
        self.reserved -= held
        self.free += held
        self.forfeits = entry.detail["forfeited"]
        return held

    def _commit(self, entry: Entry) -> None:
        held = 0
        if entry.detail["late"]:
            assert self.ended[entry.detail["reservation_id"]] == "expired", entry
            self.ended[entry.detail["reservation_id"]] = "committed"
        else:
            held = self._end(entry, "committed")
        self.free -= entry.amount
        self._charge(entry)
        assert entry.detail["released"] == max(0, held - entry.amount), entry
        assert entry.detail["forfeited"] <= entry.detail["released"], entry

    def _release(self, entry: Entry) -> None:
        assert self._end(entry, "released") == entry.amount, entry

    def _reservation_expired(self, entry: Entry) -> None:
        assert self._end(entry, "expired") == entry.amount, entry

    def _refund(self, entry: Entry) -> None:
        charge = entry.detail["refund_of"]
        self.charged[charge] -= entry.amount
        assert self.charged[charge] >= 0, f"more than was charged: {entry}"
        self.forfeits = entry.detail["forfeited"]
        self.counters["spent"] -= entry.amount
        self.free += entry.amount
        drawn = sum(part for _, part, _, _ in entry.draws) + self.forfeits
        assert 0 <= entry.amount - drawn <= self.debt - entry.debt, entry

    def _void(self, entry: Entry) -> None:
        self.counters["scheduled"] -= self.scheduled.pop(entry.detail["grant_id"], 0)
        self.counters["voided"] += entry.amount
        self.free -= entry.amount

    def _grant_expired(self, entry: Entry) -> None:
        if self.forfeits:
            self.forfeits -= entry.amount
            assert self.forfeits >= 0, entry
        self.counters["expired"] += entry.amount
        self.free -= entry.amount

    def _grant_rolled_over(self, entry: Entry) -> None:
        (old, part, rest, _), (new, whole, remaining, reserved) = entry.draws
        assert (part, whole, remaining, reserved, rest) == (entry.amount, entry.amount, entry.amount, 0, 0), entry
        assert (entry.detail["rolled_from"], entry.detail["grant_id"]) == (old, new), entry
        assert self.grants.get(new, (0, 0)) == (0, 0), entry  # a forgotten grant may come again, and so may its rest
        assert self.grants[old][0] >= entry.amount > 0, entry

    def _key(self, entry: Entry) -> None:
        assert (entry.amount, entry.draws) == (0, []), entry

    def _account(self, entry: Entry) -> None:
        self.limit = entry.detail["overdraft_limit"]
        assert (entry.amount, entry.draws) == (0, []), entry
