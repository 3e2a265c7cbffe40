"""What only Redis had is booked behind what the store has, before a rebuild makes Redis forget it.

Where Redis goes on from the very transaction that the store has last, that is a flush: the entries stand as they are,
seq and all. Where the two histories fork, entries move behind the store's: each keeps its transaction_id, kind, key,
text and links, and gets a seq of its own. Of accounts that only Redis went on with they stand as they are even then;
those of the others are done again (meter/ledger/rebase.py). Either way all is in the store before Redis is touched, so
a rebuild that is cut off loses nothing and books nothing twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from meter.engine.operations import answer_of
from meter.engine.outbox import Entry, Kind, Unread, entry_text
from meter.ledger.books import Charge
from meter.ledger.caller import CHOSEN, is_chosen
from meter.ledger.chain import UNREAD_HEAD, ChainBroken, Known, Unbookable, UnknownKind, last_unread
from meter.ledger.counted import without_counts
from meter.ledger.entry_rows import draws_of
from meter.ledger.figures_known import learn_for_figures
from meter.ledger.fold import Fold, unknown
from meter.ledger.log_file import LedgerFile
from meter.ledger.only_in_redis import OnlyInRedis
from meter.ledger.rebase import Rebase
from meter.store.base import Flush, Store, StoreRefused
from meter.store.rows import AccountRow, OperationRow, WatermarkRow

FALLS_DUE = frozenset({Kind.GRANT_STARTED, Kind.GRANT_EXPIRED, Kind.GRANT_ROLLED_OVER, Kind.RESERVATION_EXPIRED})
"""What nobody asks for: it happens in each of two histories."""
PAGE = 1_000
"""Entries that are booked in one transaction of the store."""


class Overtaken(Exception):
    """Another process moved the watermark."""


@dataclass(slots=True)
class Merged:
    """How far the store has come, and what became of the entries."""

    reached: WatermarkRow
    booked: int = 0
    """Transactions that only Redis had, and that the store has now."""
    lost: list[str] = field(default_factory=list)
    """What could not be booked: "transaction_id kind user_id amount: why"."""
    doubled: list[str] = field(default_factory=list)
    """What both histories did, and the store has: "transaction_id kind user_id amount"."""


async def merge(
    store: Store,
    reached: WatermarkRow,
    found: OnlyInRedis,
    ledger: LedgerFile | None = None,
    forked: Iterable[str] = (),
) -> Merged:
    """Books entries behind the watermark, which no flusher moves meanwhile; `ledger` is told of them, as by a flush.
    Those of the users `forked` are done again, whatever the store has of them.

    Raises `Overtaken` and `StoreUnavailable`.
    """
    merging = _Merging(store, reached, found.agreed, await last_unread(store, reached.partition), ledger, forked)
    for first in range(0, len(found.entries), PAGE):
        await merging.book(found.entries[first : first + PAGE])
    return merging.merged


class _Again(Exception):
    """The page has to be booked otherwise: what was learned of an entry is kept."""


class _Merging:
    """`agreed`: up to that seq the two histories are one, so that an account of which the store has more has forked."""

    def __init__(
        self,
        store: Store,
        reached: WatermarkRow,
        agreed: int,
        unread_seq: int,
        ledger: LedgerFile | None,
        forked: Iterable[str],
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._agreed = agreed
        self._unread_seq = unread_seq
        self._own: dict[str, int] = {}
        """The last seq that was booked here, by account: what the store has up to there is no fork."""
        self._forked: set[str] = {*forked}
        """user_ids of accounts that have more, or less, than Redis knew when it decided."""
        self._aside: dict[int, str] = {}
        """Entries, by the seq that Redis gave them, that cannot be booked, and why."""
        self.merged = Merged(reached)

    async def book(self, entries: Sequence[Entry | Unread]) -> None:
        """Books a page. One that the store refuses is booked by halves, and at last put into quarantine."""
        while True:
            known = Known(unread_seq=self._unread_seq)
            page = _Page(self._store, self.merged.reached, known, self._forked)
            try:
                await page.learn([entry for entry in entries if isinstance(entry, Entry)], self._has_forked)
                for entry in entries:
                    self._take(page, entry)
                flush = page.flush()
                flushed = await self._store.apply(flush)
            except _Again:
                continue
            except StoreRefused as refused:
                if len(entries) == 1 and (isinstance(entries[0], Unread) or entries[0].seq in self._aside):
                    raise  # not even verbatim
                if len(entries) == 1:
                    self._put_aside(entries[0], f"the store refuses it: {refused}")
                    continue
                half = len(entries) // 2
                await self.book(entries[:half])
                await self.book(entries[half:])
                return
            if not flushed.done:
                raise Overtaken
            self.merged.reached, self._unread_seq = flush.reached, known.unread_seq
            self._own |= {row.user_id: row.last_seq for row in flush.accounts}
            self.merged.booked += page.booked
            self.merged.lost += page.lost
            self.merged.doubled += page.doubled
            if self._ledger is not None:
                self._ledger.transactions(flush.transactions)
            return

    def _has_forked(self, row: AccountRow) -> bool:
        return row.last_seq > self._agreed and row.last_seq != self._own.get(row.user_id)

    def _take(self, page: _Page, entry: Entry | Unread) -> None:
        if isinstance(entry, Unread) or entry.seq in self._aside:
            page.put_aside(entry, self._aside.get(entry.seq, ""))
            return
        try:
            page.take(entry)
        except ChainBroken as broken:
            if entry.user_id in self._forked:
                self._put_aside(entry, broken.detail)
            self._forked.add(entry.user_id)
            raise _Again from None
        except UnknownKind:
            self._put_aside(entry, "only a newer version knows what it did")
            raise _Again from None
        except (Unbookable, KeyError, TypeError, ValueError) as error:
            self._put_aside(entry, f"{type(error).__name__}: {error}")
            raise _Again from None

    def _put_aside(self, entry: Entry | Unread, why: str) -> None:
        self._aside[entry.seq] = why


class _Page:
    """One step of the store: entries in the order in which Redis acknowledged them."""

    def __init__(self, store: Store, reached: WatermarkRow, known: Known, forked: set[str]) -> None:
        self._store = store
        self._forked = forked
        self._partition, self._epoch, self._seq = reached.partition, reached.epoch, reached.seq
        self._head = reached.head
        self._known = known
        self._fold = Fold(reached.partition, reached, known, _now_ms())
        self._rebase = Rebase(self._known)
        self._keys: dict[str, OperationRow] = {}
        self.booked = 0
        self.lost: list[str] = []
        self.doubled: list[str] = []

    async def learn(self, entries: Sequence[Entry], has_forked: Callable[[AccountRow], bool]) -> None:
        """Reads the rows that the entries touch; of accounts that have forked, all that they live on."""
        store, known = self._store, self._known
        users, grants, reservations = unknown(entries, known)
        known.accounts.update(await store.accounts(list(users)))
        known.grants.update(await store.grants(list(grants)))
        known.reservations.update(await store.reservations(list(reservations | _reserved(entries))))
        await learn_for_figures(store, entries, known)
        self._forked |= {row.user_id for row in known.accounts.values() if has_forked(row)}
        forked = [entry for entry in entries if entry.user_id in self._forked]
        self._rebase.learn(await store.live_grants(sorted({entry.user_id for entry in forked})))
        self._rebase.learn([row for row in known.grants.values() if row.user_id in self._forked])
        for entry in forked:
            await self._learn_of(entry)

    async def _learn_of(self, entry: Entry) -> None:
        """The charge of a refund, and whether the key of an entry was used in the store's history too."""
        charge = entry.text("refund_of")
        row = None if charge is None else await self._store.transaction(charge)
        if row is not None:
            refunded = await self._store.refunded(row.transaction_id)
            self._rebase.charges[row.transaction_id] = Charge(row.amount, draws_of(row), refunded)
        for name in _keys_of(entry):
            key = await self._store.get(OperationRow, self._partition, name)
            if key is not None:
                self._keys[name] = key

    def take(self, entry: Entry) -> None:
        """Books an entry. Raises what `Fold.take` raises, and then the page is to be made anew."""
        if not isinstance(entry.kind, Kind):
            self.lost.append(f"{_described(entry)}: only a newer version knows what it did")
            self._book(entry)
        elif entry.user_id in self._forked:
            self._take_again(entry, entry.kind)
        else:
            self._book(entry)
            self.booked += 1

    def _take_again(self, entry: Entry, kind: Kind) -> None:
        for owed in self._rebase.owed_before(entry):
            self._book(owed)
        keys = [key for name in _keys_of(entry) if (key := self._keys.get(name)) is not None]
        if any(key.fingerprint == entry.text("fingerprint") for key in keys):
            self.doubled.append(_described(entry))  # asked for once, and done in both
            return
        rebased = self._rebase.again(entry, kind)
        if rebased.lost:
            self.lost.append(f"{_described(entry)}: {rebased.lost}")
        if rebased.entry is None:
            if not rebased.lost and kind not in FALLS_DUE:
                self.doubled.append(_described(entry))
            return
        booked = rebased.entry
        if entry.operation_id in self._keys:  # the key is another body's in the store
            booked = booked._replace(operation_id="", detail={**booked.detail, "key": entry.operation_id})
        self._book(_answering_as(entry, booked))
        self.booked += 1

    def put_aside(self, entry: Entry | Unread, why: str) -> None:
        """Puts an entry into quarantine, verbatim."""
        if isinstance(entry, Entry):
            self.lost.append(f"{_described(entry)}: {why}; it is in quarantine")
            entry = Unread(entry.seq, entry_text(entry), why[:500])
        else:
            self.lost.append(f"seq {entry.seq} of Redis: {entry.reason}; it is in quarantine")
        self._seq += 1
        self._fold.take([Unread(self._seq, entry.text, entry.reason)])
        self._head = UNREAD_HEAD

    def flush(self) -> Flush:
        """All of it, as one step."""
        for owed in self._rebase.owed_at_the_end():
            self._book(owed)
        return self._fold.flush()

    def _book(self, entry: Entry) -> None:
        self._seq += 1
        name = entry.transaction_id or f"{self._partition}-{self._seq}-rebuild-{self._epoch}"
        entry = entry._replace(epoch=self._epoch, seq=self._seq, prev=self._head, transaction_id=name)
        entry = without_counts(entry)  # which the rebuild adds up anew
        self._fold.take([entry])
        self._head = name
        self._rebase.note(entry)


def _answering_as(entry: Entry, booked: Entry) -> Entry:
    """The entry to be booked, with what was answered then where that is another answer than it would give."""
    if not (entry.operation_id or is_chosen(entry) or entry.text("reservation_id")):
        return booked
    if entry.brings_a_grant and not entry.transaction_id:
        return booked  # nobody knows what was answered (meter/ledger/offered.py)
    answer = answer_of(entry)
    return booked if answer == answer_of(booked) else booked._replace(detail={**booked.detail, "answered": answer})


def _keys_of(entry: Entry) -> list[str]:
    """What tells that two entries are one and the same call."""
    chosen = [f"{CHOSEN}{entry.text('reservation_id')}"] if is_chosen(entry) else []
    return [entry.operation_id, *chosen] if entry.operation_id else chosen


def _reserved(entries: Iterable[Entry]) -> set[str]:
    return {str(entry.text("reservation_id")) for entry in entries if entry.kind is Kind.RESERVE}


def _described(entry: Entry) -> str:
    return f"{entry.transaction_id} {entry.kind} {entry.user_id} {entry.amount}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
