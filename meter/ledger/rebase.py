"""What an entry that only Redis had does to an account that the store went on with.

It does again what it did then, to the grants that it drew on as far as they still have it: under its own id, kind, key,
text and links, and at its own time. Nothing is invented: what is not there any more is said to be lost, and what was
not charged is not refunded. On an account that nothing else happened to, it does exactly what it did.

Pure: an entry and the rows before it go in, the entries to be booked come out. lua/operations has the same rules for
what is asked now; tests/ledger/test_rebase.py compares the two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, assert_never

from meter.engine.outbox import CHARGES, Draw, Entry, Kind, moves
from meter.engine.restrictions import only_of_made
from meter.ledger.books import ENDED, Books, Charge, Lot, Parts
from meter.ledger.chain import Known
from meter.ledger.entry_rows import name_before
from meter.store.rows import GrantRow, ReservationRow


class Rebased(NamedTuple):
    """What becomes of an entry."""

    entry: Entry | None = None
    """What is to be booked; None where nothing is: it is lost, or the store has what it did already."""
    lost: str = ""
    """Why it, or how much of it, is not booked; "" where nothing is lost."""


class _Owed(NamedTuple):
    """Credits that returned to a grant which has ended: to be booked as expired by an entry of their own."""

    grant_id: str
    amount: int
    cause: Entry


class Rebase:
    """Does entries again on the rows of `known`, which whoever books them keeps up to date."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._grants: dict[str, set[str]] = defaultdict(set)
        self._owed: dict[str, list[_Owed]] = defaultdict(list)
        self.charges: dict[str, Charge] = {}
        """Those that refunds of these entries are of, by transaction_id; `note` adds those that are booked."""

    def learn(self, rows: Iterable[GrantRow]) -> None:
        """Takes note of what users have; what `known` has already is as it is there."""
        for row in rows:
            self._grants[row.user_id].add(row.grant_id)
            self._known.grants.setdefault((row.user_id, row.grant_id), row)

    def note(self, entry: Entry) -> None:
        """Takes note of an entry that was booked."""
        self._grants[entry.user_id].update(draw.grant_id for draw in entry.draws)
        if entry.kind in CHARGES:
            draws = [(draw.grant_id, draw.amount) for draw in entry.draws if draw.amount]
            self.charges[entry.transaction_id] = Charge(entry.amount, draws)
        charge = self.charges.get(entry.text("refund_of") or "")
        if charge is not None:
            charge.refunded += entry.amount

    def owed_before(self, entry: Entry) -> list[Entry]:
        """What has to be booked before an entry: forfeits whose own entries do not come."""
        owed = self._owed[entry.user_id]
        if owed and entry.kind is Kind.GRANT_EXPIRED and entry.text("grant_id") == owed[0].grant_id:
            return []
        return [self._expired(one) for one in self._owed.pop(entry.user_id)]

    def owed_at_the_end(self) -> list[Entry]:
        """What has to be booked when no entry follows."""
        owed, self._owed = self._owed, defaultdict(list)
        return [self._expired(one) for several in owed.values() for one in several]

    def again(self, entry: Entry, kind: Kind) -> Rebased:  # noqa: PLR0912 - a branch for each kind
        """What becomes of an entry. What `owed_before` tells has to be booked."""
        books = self._books(entry)
        if not moves(kind):
            return (
                Rebased(lost="the account has credits again")
                if self._lives(entry)
                else Rebased(books.booked(entry, 0, []))
            )
        match kind:
            case Kind.DEDUCT:
                rebased = self._deduct(entry, books)
            case Kind.REFUND:
                rebased = self._refund(entry, books)
            case Kind.RESERVE:
                rebased = self._reserve(entry, books)
            case Kind.EXTEND:
                rebased = self._extend(entry, books)
            case Kind.COMMIT:
                rebased = self._commit(entry, books)
            case Kind.RELEASE | Kind.RESERVATION_EXPIRED:
                rebased = self._end(entry, kind, books)
            case Kind.GRANT:
                rebased = self._grant(entry, books)
            case Kind.ADJUST:
                rebased = self._grant(entry, books) if entry.amount > 0 else self._take(entry, books)
            case Kind.GRANT_STARTED:
                rebased = self._start(entry, books)
            case Kind.GRANT_EXPIRED:
                return self._expire(entry, books)
            case Kind.GRANT_ROLLED_OVER:
                rebased = self._roll_over(entry, books)
            case Kind.VOID:
                rebased = self._void(entry, books)
            case _:
                assert_never(kind)
        self._owed[entry.user_id] += [_Owed(name, amount, entry) for name, amount in books.forfeits]
        return rebased

    def _lives(self, entry: Entry) -> bool:
        """Whether the account that the entry gives another name has something, here where the store went on."""
        row = self._known.accounts.get(name_before(entry) or "")
        return row is not None and (row.available, row.reserved, row.debt, row.restricted or 0) != (0, 0, 0, 0)

    def _deduct(self, entry: Entry, books: Books) -> Rebased:
        from_grants = sum(draw.amount for draw in entry.draws)
        parts = books.draw(entry.amount, entry, entry.draws)
        taken = sum(part for _, part in parts)
        taken += books.owe(entry.amount - taken) if entry.amount > from_grants else 0
        if taken == 0:
            return Rebased(lost="insufficient")
        return self._charged(entry, taken, books, parts)

    def _charged(self, entry: Entry, taken: int, books: Books, parts: Parts, **detail: object) -> Rebased:
        """A charge of what could be taken."""
        short = entry.amount - taken
        if short:
            detail["uncovered"] = entry.units("uncovered") + short
        return Rebased(books.booked(entry, taken, parts, **detail), f"{short} of it are not covered" if short else "")

    def _refund(self, entry: Entry, books: Books) -> Rebased:
        charge = self.charges.get(entry.text("refund_of") or "")
        if charge is None:
            return Rebased(lost="what it refunds is lost")
        amount = min(entry.amount, charge.amount - charge.refunded)
        if amount <= 0:
            return Rebased(lost="nothing is left of what it refunds")
        parts, homeless = charge.parts(amount)
        on_debt = min(homeless, books.debt)
        books.debt -= on_debt
        homeless -= on_debt
        draws: Parts = []
        for grant_id, part in parts:
            forfeits = len(books.forfeits)
            if not books.give_back(grant_id, part):
                homeless += part
            elif part and len(books.forfeits) == forfeits:
                draws.append((grant_id, part))
        if homeless:
            draws.append((self._new_grant(entry, books, homeless), homeless))
        forfeited = sum(part for _, part in books.forfeits)
        left = charge.amount - charge.refunded - amount
        booked = books.booked(entry, amount, draws, forfeited=forfeited, left=left)
        missing = entry.amount - amount
        return Rebased(booked, f"{missing} of it are more than was charged" if missing else "")

    def _new_grant(self, entry: Entry, books: Books, amount: int) -> str:
        """Credits without a grant to return to get one of their own."""
        name = next((draw.grant_id for draw in entry.draws if draw.grant_id not in books.lots), "")
        name = name or f"refund-{entry.transaction_id}"
        only = only_of_made(entry.detail, name, is_made=False) or ""
        lot = books.lots[name] = Lot.new(name, amount, 0, only)
        books.arrive(lot, amount)
        return name

    def _reserve(self, entry: Entry, books: Books) -> Rebased:
        row = self._known.reservations.get(str(entry.text("reservation_id")))
        if row is not None and (row.state == "open" or "fingerprint" in entry.detail):
            is_same = "fingerprint" not in entry.detail and (row.user_id, row.amount) == (entry.user_id, entry.amount)
            return Rebased() if is_same else Rebased(lost="its id is another reservation's")
        if entry.amount > books.usable(entry):
            return Rebased(lost="insufficient")
        return Rebased(books.booked(entry, entry.amount, books.draw(entry.amount, entry, entry.draws, held=True)))

    def _extend(self, entry: Entry, books: Books) -> Rebased:
        row = self._known.reservations.get(str(entry.text("reservation_id")))
        if row is None or row.state != "open":
            return Rebased(lost=_why_not(row))
        if entry.amount > books.usable(entry):
            return Rebased(lost="insufficient")
        parts = books.draw(entry.amount, entry, entry.draws, held=True)
        return Rebased(books.booked(entry, entry.amount, parts, held=row.amount + entry.amount))

    def _commit(self, entry: Entry, books: Books) -> Rebased:
        row = self._known.reservations.get(str(entry.text("reservation_id")))
        if row is not None and row.state == "committed" and row.requested == entry.amount + entry.units("uncovered"):
            return Rebased()
        if row is None or row.state in ("committed", "released"):
            return Rebased(lost=_why_not(row))
        held = row.amount if row.state == "open" else 0
        kept = min(held, entry.amount)
        on_debt = entry.amount > sum(draw.amount for draw in entry.draws)
        parts = books.end(row, kept) if row.state == "open" else []
        more = books.draw(entry.amount - kept, entry, _behind(entry.draws, kept))
        taken = kept + sum(part for _, part in more)
        taken += books.owe(entry.amount - taken) if on_debt else 0
        forfeited = sum(part for _, part in books.forfeits)
        detail = {"released": held - kept, "forfeited": forfeited, "late": row.state != "open"}
        return self._charged(entry, taken, books, [*parts, *more], **detail)

    def _end(self, entry: Entry, kind: Kind, books: Books) -> Rebased:
        row = self._known.reservations.get(str(entry.text("reservation_id")))
        if row is None or row.state != "open":
            is_done = row is not None and row.state == kind.leaves
            return Rebased() if is_done or kind is Kind.RESERVATION_EXPIRED else Rebased(lost=_why_not(row))
        parts = books.end(row, 0)
        forfeited = sum(part for _, part in books.forfeits)
        return Rebased(books.booked(entry, row.amount, parts, forfeited=forfeited))

    def _grant(self, entry: Entry, books: Books) -> Rebased:
        name = str(entry.text("grant_id"))
        row = self._known.grants.get((entry.user_id, name))
        if row is not None and not row.pending:
            return Rebased(lost="its id is another grant's")
        scheduled = entry.units("effective_at") > entry.created_at_ms
        only = only_of_made(entry.detail, name, is_made=True) or ""
        lot = books.lots[name] = Lot.new(name, entry.amount, entry.amount if scheduled else 0, only)
        paid = 0 if scheduled else books.arrive(lot, entry.amount)
        return Rebased(books.booked(entry, entry.amount, [(name, paid)]))

    def _take(self, entry: Entry, books: Books) -> Rebased:
        """Takes again what was taken by an adjustment, as far as it is there."""
        parts = books.draw(-entry.amount, entry, entry.draws)
        taken = sum(part for _, part in parts)
        if taken == 0:
            return Rebased(lost="insufficient")
        short = -entry.amount - taken
        return Rebased(books.booked(entry, -taken, parts), f"{short} of it are not there" if short else "")

    def _start(self, entry: Entry, books: Books) -> Rebased:
        lot = books.lots.get(str(entry.text("grant_id")))
        if lot is None or lot.state != "scheduled":
            return Rebased()
        lot.remaining, amount = 0, lot.remaining
        paid = books.arrive(lot, amount)
        return Rebased(books.booked(entry, amount, [(lot.id, paid)]))

    def _expire(self, entry: Entry, books: Books) -> Rebased:
        name = str(entry.text("grant_id"))
        owed = self._owed[entry.user_id]
        if owed and owed[0].grant_id == name:
            amount = owed.pop(0).amount
            books.move(books.lots[name], -amount)
            return Rebased(books.booked(entry, amount, [(name, amount)]))
        lot = books.lots.get(name)
        if lot is None or lot.state in ENDED or lot.remaining == 0:
            return Rebased()
        amount, lot.remaining = lot.remaining, 0
        books.move(lot, -amount)
        return Rebased(books.booked(entry, amount, [(name, amount)]))

    def _roll_over(self, entry: Entry, books: Books) -> Rebased:
        old, new = books.lots.get(str(entry.text("rolled_from"))), str(entry.text("grant_id"))
        if old is None or old.state in ENDED or old.remaining == 0 or new in books.lots:
            return Rebased()
        amount = min(entry.amount, old.remaining)
        if old.remaining > amount:
            books.forfeits.append((old.id, old.remaining - amount))
        old.remaining = 0
        books.lots[new] = Lot.new(new, amount, amount, old.only)
        return Rebased(books.booked(entry, amount, [(old.id, amount), (new, amount)]))

    def _void(self, entry: Entry, books: Books) -> Rebased:
        lot = books.lots.get(str(entry.text("grant_id")))
        if lot is None or lot.state in ENDED:
            return Rebased() if lot is not None and lot.state == "voided" else Rebased(lost="the grant is gone")
        voided, lot.remaining = lot.remaining, 0
        amount = 0 if lot.state == "scheduled" else voided
        books.move(lot, -amount)
        return Rebased(books.booked(entry, amount, [(lot.id, amount)], voided=voided))

    def _expired(self, owed: _Owed) -> Entry:
        """The entry of a forfeit. Its transaction_id is for whoever books it."""
        entry = owed.cause._replace(
            kind=Kind.GRANT_EXPIRED, transaction_id="", operation_id="", detail={"grant_id": owed.grant_id}
        )
        books = self._books(entry)
        books.move(books.lots[owed.grant_id], -owed.amount)
        return books.booked(entry, owed.amount, [(owed.grant_id, owed.amount)])

    def _books(self, entry: Entry) -> Books:
        """The account as it is when the entry is booked: at one and the same moment, holds end before grants do."""
        user_id = entry.user_id
        rows = [self._known.grants.get((user_id, grant_id)) for grant_id in self._grants[user_id]]
        by_the_clock = entry.kind is Kind.COMMIT and entry.text("at_end") == "charge"
        ends_a_hold = entry.kind is Kind.RESERVATION_EXPIRED or by_the_clock
        before_ms = entry.created_at_ms + (not ends_a_hold)
        account = self._known.accounts.get(user_id)
        return Books.of(account, [row for row in rows if row is not None], before_ms)


def _behind(draws: Sequence[Draw], kept: int) -> Sequence[Draw]:
    """The draws of a commit without those that keep what was held."""
    for n, draw in enumerate(draws):
        if kept < draw.amount:
            return [draw._replace(amount=draw.amount - kept), *draws[n + 1 :]]
        kept -= draw.amount
    return ()


def _why_not(row: ReservationRow | None) -> str:
    return "the reservation is lost" if row is None else f"the reservation is {row.state} already"
