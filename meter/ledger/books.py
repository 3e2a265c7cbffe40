"""An account and its grants while an entry is done again: what it takes from them and gives to them, in units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from meter.engine.outbox import Draw, Entry
from meter.ledger.entry_rows import draws_of
from meter.store.rows import AccountRow, GrantRow, ReservationRow

ENDED = ("expired", "voided")

Parts = list[tuple[str, int]]
"""(grant_id, amount), in the order in which they were drawn."""


@dataclass(slots=True)
class Charge:
    """What a refund may give back: `refunded` of it was given back before. What exceeds the draws was on debt."""

    amount: int
    draws: Sequence[tuple[str, int]]
    refunded: int = 0

    def parts(self, amount: int) -> tuple[Parts, int]:
        """What a refund of an amount gives to which grant, newest draw first, and what of it was on debt."""
        before = self.refunded
        on_debt = self.amount - sum(part for _, part in self.draws)
        found: list[int] = []
        for part in (on_debt, *(part for _, part in reversed(self.draws))):
            skipped = min(before, part)
            found.append(min(amount, part - skipped))
            before, amount = before - skipped, amount - found[-1]
        return [(name, part) for (name, _), part in zip(reversed(self.draws), found[1:], strict=True)], found[0]


@dataclass(slots=True)
class Lot:
    """A grant while an entry is done again."""

    id: str
    amount: int
    remaining: int
    reserved: int
    state: str
    is_due: bool
    """Its end has come, whether or not that is booked."""
    has_ended: bool
    """Its end was booked, or needed no entry because nothing was left."""
    order: tuple[int, int, int, int, str]

    @classmethod
    def new(cls, name: str, amount: int, remaining: int) -> Lot:
        """A grant that begins to exist; it burns from the next entry on."""
        return cls(name, amount, remaining, 0, "active", False, False, (0, 0, 0, 0, name))

    @property
    def burns(self) -> bool:
        """Whether something can be drawn of it."""
        return self.state in ("active", "exhausted") and not self.is_due and self.remaining > 0

    def has_room_for(self, amount: int) -> bool:
        """Whether an amount can have come from it; of a grant with the id of a forgotten one that may not be so."""
        begun = self.state != "scheduled"
        return self.has_ended or (begun and self.remaining + self.reserved + amount <= self.amount)


@dataclass(slots=True)
class Books:
    """An account while an entry is done again."""

    available: int
    reserved: int
    debt: int
    overdraft_limit: int
    lots: dict[str, Lot]
    forfeits: Parts = field(default_factory=list)

    def draw(self, amount: int, wanted: Sequence[Draw], *, held: bool = False) -> Parts:
        """Takes what is there of an amount: from the grants that it was taken from then, the rest in burn order."""
        parts: Parts = []
        left = min(amount, self.available)
        others = [(lot.id, lot.remaining) for lot in sorted(self.lots.values(), key=lambda lot: lot.order)]
        for grant_id, most in [*((draw.grant_id, draw.amount) for draw in wanted), *others]:
            lot = self.lots.get(grant_id)
            part = min(left, most, lot.remaining) if lot is not None and lot.burns else 0
            if lot is None or part == 0:
                continue
            lot.remaining -= part
            lot.reserved += part if held else 0
            left -= part
            parts.append((grant_id, part))
        taken = sum(part for _, part in parts)
        self.available -= taken
        self.reserved += taken if held else 0
        return parts

    def owe(self, amount: int) -> int:
        """Puts as much of an amount on debt as the limit allows; answers how much that is."""
        owed = max(0, min(amount, self.overdraft_limit - self.debt)) if self.available == 0 else 0
        self.debt += owed
        return owed

    def arrive(self, lot: Lot, amount: int) -> int:
        """Credits come in, debt first; answers what went into the debt."""
        paid = min(self.debt, amount)
        self.debt -= paid
        self.available += amount - paid
        lot.remaining += amount - paid
        return paid

    def give_back(self, grant_id: str, amount: int) -> bool:
        """Credits return to their grant; to one that has ended they are forfeited. False: there is no such grant."""
        lot = self.lots.get(grant_id)
        if lot is None or not lot.has_room_for(amount):
            return False
        if amount and lot.has_ended:
            self.available += amount
            self.forfeits.append((grant_id, amount))
        else:
            self.arrive(lot, amount)
        return True

    def end(self, row: ReservationRow, charge: int) -> Parts:
        """Ends a hold of which `charge` stays taken: its first draws are kept, the newest go back."""
        kept: Parts = []
        self.reserved -= row.amount
        for grant_id, part in draws_of(row):
            stays = min(part, charge)
            charge -= stays
            self.lots[grant_id].reserved -= part
            kept.append((grant_id, stays))
            self.give_back(grant_id, part - stays)
        return kept

    def booked(self, entry: Entry, amount: int, parts: Parts, **detail: object) -> Entry:
        """The entry as it now is."""
        return entry._replace(
            amount=amount,
            draws=tuple(Draw(name, part, self.lots[name].remaining, self.lots[name].reserved) for name, part in parts),
            available=self.available,
            reserved=self.reserved,
            debt=self.debt,
            detail={**entry.detail, **detail},
        )

    @classmethod
    def of(cls, account: AccountRow | None, grants: Iterable[GrantRow], before_ms: int) -> Books:
        """From the rows; grants that end before that time have ended."""
        lots = {row.grant_id: _lot(row, before_ms) for row in grants if not row.pending}
        if account is None:
            return cls(0, 0, 0, 0, lots)
        return cls(account.available, account.reserved, account.debt, account.overdraft_limit, lots)


def _lot(row: GrantRow, before_ms: int) -> Lot:
    is_due = row.expires_at_ms < before_ms
    has_ended = row.state in ENDED or (is_due and row.remaining == 0)
    order = (row.priority, row.expires_at_ms, row.effective_at_ms, row.created_at_ms, row.grant_id)
    return Lot(row.grant_id, row.amount, row.remaining, row.reserved, row.state, is_due, has_ended, order)
