"""An account and its grants while an entry is done again: what it takes from them and gives to them, in units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from meter.engine.outbox import Draw, Entry
from meter.engine.restrictions import fits
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
    order: tuple[int, int, bool, int, int, str]
    only: str = ""
    """What it may be spent on; "" for anything."""

    @classmethod
    def new(cls, name: str, amount: int, remaining: int, only: str = "") -> Lot:
        """A grant that begins to exist; it burns from the next entry on."""
        return cls(name, amount, remaining, 0, "active", False, False, (0, 0, False, 0, 0, name), only)

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
    """An account while an entry is done again. `restricted` is what is free of grants that are for some things only,
    which `available` is without.
    """

    available: int
    reserved: int
    debt: int
    overdraft_limit: int
    lots: dict[str, Lot]
    forfeits: Parts = field(default_factory=list)
    restricted: int = 0

    def usable(self, entry: Entry) -> int:
        """What there is for an entry: of restricted grants those that it drew on then, and those that are for it."""
        fitting = [lot for lot in self.lots.values() if lot.only and lot.burns and _serves(lot, entry)]
        return self.available + min(self.restricted, sum(lot.remaining for lot in fitting))

    def draw(self, amount: int, entry: Entry, wanted: Sequence[Draw], *, held: bool = False) -> Parts:
        """Takes what is there of an amount: from the grants that it was taken from then, the rest in burn order."""
        parts: Parts = []
        others = [(lot.id, lot.remaining) for lot in sorted(self.lots.values(), key=lambda lot: lot.order)]
        for grant_id, most in [*((draw.grant_id, draw.amount) for draw in wanted), *others]:
            lot = self.lots.get(grant_id)
            if lot is None or not (lot.burns and _serves(lot, entry)):
                continue
            part = min(amount, most, lot.remaining, self.restricted if lot.only else self.available)
            if part == 0:
                continue
            lot.remaining -= part
            lot.reserved += part if held else 0
            amount -= part
            self.move(lot, -part)
            parts.append((grant_id, part))
        self.reserved += sum(part for _, part in parts) if held else 0
        return parts

    def move(self, lot: Lot, amount: int) -> None:
        """Adds to what is free of a grant."""
        if lot.only:
            self.restricted += amount
        else:
            self.available += amount

    def owe(self, amount: int) -> int:
        """Puts as much of an amount on debt as the limit allows; answers how much that is."""
        owed = max(0, min(amount, self.overdraft_limit - self.debt)) if self.available == 0 else 0
        self.debt += owed
        return owed

    def arrive(self, lot: Lot, amount: int) -> int:
        """Credits come in, debt first; answers what went into the debt."""
        paid = 0 if lot.only else min(self.debt, amount)
        self.debt -= paid
        self.move(lot, amount - paid)
        lot.remaining += amount - paid
        return paid

    def give_back(self, grant_id: str, amount: int) -> bool:
        """Credits return to their grant; to one that has ended they are forfeited. False: there is no such grant."""
        lot = self.lots.get(grant_id)
        if lot is None or not lot.has_room_for(amount):
            return False
        if amount and lot.has_ended:
            self.move(lot, amount)
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
        lost = sum(part for name, part in self.forfeits if self.lots[name].only)
        told = {**entry.detail, **detail, "restricted": self.restricted, "forfeited_restricted": lost}
        for name in ("restricted", "forfeited_restricted"):
            if not told[name]:
                del told[name]
        return entry._replace(
            amount=amount,
            draws=tuple(Draw(name, part, self.lots[name].remaining, self.lots[name].reserved) for name, part in parts),
            available=self.available,
            reserved=self.reserved,
            debt=self.debt,
            detail=told,
        )

    @classmethod
    def of(cls, account: AccountRow | None, grants: Iterable[GrantRow], before_ms: int) -> Books:
        """From the rows; grants that end before that time have ended."""
        lots = {row.grant_id: _lot(row, before_ms) for row in grants if not row.pending}
        if account is None:
            return cls(0, 0, 0, 0, lots)
        found = cls(account.available, account.reserved, account.debt, account.overdraft_limit, lots)
        found.restricted = account.restricted or 0
        return found


def _serves(lot: Lot, entry: Entry) -> bool:
    """Whether a grant may be spent on what an entry is for."""
    if not lot.only or any(draw.grant_id == lot.id for draw in entry.draws):
        return True
    return fits(lot.only, entry.text("tags") or "", entry.text("price") or "")


def _lot(row: GrantRow, before_ms: int) -> Lot:
    is_due = row.expires_at_ms < before_ms
    has_ended = row.state in ENDED or (is_due and row.remaining == 0)
    begun = (row.effective_at_ms, row.created_at_ms, row.grant_id)
    order = (row.priority, row.expires_at_ms, row.only is None, *begun)
    amounts = (row.amount, row.remaining, row.reserved)
    return Lot(row.grant_id, *amounts, row.state, is_due, has_ended, order, row.only or "")
