"""The fold: what each kind of entry makes of the rows, and everything that breaks the chain."""

from __future__ import annotations

from typing import Any

import pytest

from meter.engine import operations
from meter.engine.outbox import Draw, Entry, Kind, Unread
from meter.ledger.chain import UNREAD_HEAD, ChainBroken, Known, Unbookable, UnknownKind
from meter.ledger.fold import unknown
from meter.store.base import Flush
from tests import invariants
from tests.ledger.folding import fold
from tests.ledger.story import tell
from tests.partition import DAY, T0, Partition


@pytest.fixture
def entries(partition: Partition) -> list[Entry]:
    """Every kind of entry, as the scripts write them."""
    tell(partition, T0)
    partition.freeze(T0 + 2 * DAY)
    partition.run(operations.balance("u"))
    return partition.entries()


def in_steps(entries: list[Entry], size: int) -> tuple[list[Flush], Known]:
    """The entries, so many at a time."""
    flushes: list[Flush] = []
    known = Known()
    for first in range(0, len(entries), size):
        expected = flushes[-1].reached if flushes else None
        flushes.append(fold(0, expected, entries[first : first + size], known, T0))
    return flushes, known


def test_the_story_has_every_kind(entries: list[Entry]) -> None:
    kinds = "grant grant_started grant_expired deduct reserve commit release extend refund void account adjust"
    assert {entry.kind for entry in entries} == {*kinds.split(), "reservation_expired", "grant_rolled_over"}


@pytest.mark.parametrize("size", [1, 2, 7, 1_000])
def test_however_it_is_cut_the_rows_are_the_accounts(partition: Partition, entries: list[Entry], size: int) -> None:
    flushes, known = in_steps(entries, size)
    state = invariants._read(partition.client, "meter:{p0}", "0")
    assert set(known.accounts) == set(state.accounts)
    for user, account in state.accounts.items():
        for name in ("available", "reserved", "debt", "granted", "spent", "expired", "voided", "overdraft_limit"):
            assert getattr(known.accounts[user], name) == getattr(account, name), (user, name)
        for grant_id, grant in account.grants.items():
            row = known.grants[user, grant_id]
            assert (row.remaining, row.reserved, row.amount) == (grant.remaining, grant.reserved, grant.amount)
        for hold_id, hold in account.holds.items():
            assert (known.reservations[hold_id].amount, known.reservations[hold_id].state) == (hold.amount, "open")
    assert [row.seq for flush in flushes for row in flush.transactions] == list(range(1, len(entries) + 1))
    assert (flushes[-1].reached.seq, flushes[-1].reached.head) == (len(entries), entries[-1].transaction_id)


def test_each_grant_has_the_state_that_it_came_to(entries: list[Entry]) -> None:
    states = {row.grant_id: row.state for row in fold(0, None, entries, Known(), T0).grants}
    assert states.pop("brief") == "expired" and states.pop("void") == states.pop("never") == "voided"
    assert states.pop("first") == "active"  # exhausted, and then refunded to
    assert states.pop("later") == "active"  # begun by now
    assert (states.pop("rolling"), states.pop("rolling.rollover")) == ("expired", "active")
    assert (states.pop("amends"), states.pop("other")) == ("active", "exhausted")  # given and taken by adjustments
    assert states == {"more": "active", "paid": "exhausted", "ending": "exhausted"}
    early = {row.grant_id: row.state for row in fold(0, None, entries[:10], Known(), T0).grants}
    assert (early["later"], early["never"], early["first"]) == ("scheduled", "voided", "exhausted")


def test_each_reservation_has_its_end(entries: list[Entry]) -> None:
    rows = {row.reservation_id: row for row in fold(0, None, entries, Known(), T0).reservations}
    ends = {name: (row.state, row.amount, row.charged, row.requested) for name, row in rows.items()}
    assert ends["ended"] == ("committed", 20, 12, 12)
    assert ends["over"] == ("committed", 20, 26, 26)
    assert ends["given"][:3] == ("released", 20, 0)
    assert ends["hold"][:3] == ("expired", 40, 0)
    assert all(row.ended_at_ms for row in rows.values())
    draws: Any = rows["hold"].draws
    assert sum(draw[1] for draw in draws) == 40


def test_configuration_is_kept(entries: list[Entry]) -> None:
    rows = {row.user_id: row for row in fold(0, None, entries, Known(), T0).accounts}
    assert (rows["v"].overdraft_limit, rows["v"].low_credit_thresholds, rows["v"].debt) == (100, "9,3", 50)
    assert rows["v"].profile == {"name": "V", "n": 1.5}
    assert rows["w"].suspended and not rows["v"].suspended


def test_what_a_fold_touches(entries: list[Entry]) -> None:
    users, grants, reservations = unknown([*entries, Unread(99, b"x", "y")], Known())
    assert users == {"u", "v", "w", "z"}
    assert ("v", "paid") in grants and ("u", "paid") not in grants
    assert reservations == set()

    at = next(at for at, entry in enumerate(entries) if entry.detail.get("reservation_id") == "hold")
    assert "hold" in unknown(entries[at + 1 :], Known())[2]
    known = Known()
    fold(0, None, entries, known, T0)
    assert unknown(entries, known) == (set(), set(), set())


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"seq": 9}, "seq 9 follows 7"),
        ({"seq": 7}, "seq 7 follows 7"),
        ({"epoch": 2}, "of epoch 2, not 1"),
        ({"prev": "0-7-other-1"}, "follows 0-7-other-1"),
        ({"available": 1}, "leaves 1"),
        ({"amount": 1}, "of 1 at seq 8"),
        ({"debt": 1}, "- 1 after"),
        ({"draws": (Draw("unknown", 0, 0, 0),)}, "draws on unknown grant unknown"),
    ],
)
@pytest.mark.parametrize("apart", [False, True], ids=["in one step", "at the watermark"])
def test_a_broken_link_stops_the_step(entries: list[Entry], changed: dict[str, object], why: str, apart: bool) -> None:
    assert entries[7].kind == "deduct"
    wrong, known, reached = entries[7]._replace(**changed), Known(), None  # type: ignore[arg-type]
    if apart:
        reached = fold(0, None, entries[:7], known, T0).reached
    with pytest.raises(ChainBroken, match=why):
        fold(0, reached, [wrong] if apart else [*entries[:7], wrong], known, T0)


def test_the_end_of_a_hold_that_nobody_made_stops_the_step(entries: list[Entry]) -> None:
    at = next(n for n, entry in enumerate(entries) if entry.kind == "release")
    known = Known()
    reached = fold(0, None, entries[:at], known, T0).reached
    known.reservations.clear()
    with pytest.raises(ChainBroken, match="unknown hold given"):
        fold(0, reached, entries[at : at + 1], known, T0)


@pytest.mark.parametrize("changed", [{"detail": {}}, {"detail": {"held": 5, "expires_at": "soon"}}])
def test_an_entry_that_says_nonsense_is_named(entries: list[Entry], changed: dict[str, object]) -> None:
    at = next(n for n, entry in enumerate(entries) if entry.kind == "extend")
    wrong = entries[at]._replace(**{"detail": entries[at].detail, **changed})  # type: ignore[arg-type]
    if wrong.detail == {}:
        wrong = wrong._replace(kind=Kind.GRANT)
    with pytest.raises(Unbookable) as caught:
        fold(0, None, [*entries[:at], wrong], Known(), T0)
    assert caught.value.index == at and caught.value.reason


def test_an_entry_of_a_kind_to_come_is_not_guessed_at(entries: list[Entry]) -> None:
    at = next(n for n, entry in enumerate(entries) if entry.kind == "extend")
    with pytest.raises(UnknownKind, match="is of the kind moved: upgrade this worker") as caught:
        fold(0, None, [*entries[:at], entries[at]._replace(kind="moved")], Known(), T0)
    assert caught.value.index == at


def unread(entry: Entry) -> Unread:
    return Unread(entry.seq, b'\xff\x00{"e"', "ValueError: not JSON")


def test_a_poison_entry_is_kept_as_its_seq_with_an_alarm(entries: list[Entry]) -> None:
    flush = fold(0, None, [*entries[:4], unread(entries[4]), *entries[5:9]], Known(), T0)
    assert [row.seq for row in flush.transactions] == [1, 2, 3, 4, 6, 7, 8, 9]
    (kept,) = flush.quarantine
    assert (kept.seq, kept.text, kept.reason) == (5, '\\xff\\x00{"e"', "ValueError: not JSON")
    assert {event.kind for event in flush.events} == {"error", "quarantine"}
    assert "outbox entry 5 of partition 0 is in quarantine" in {event.message for event in flush.events}


@pytest.mark.parametrize("poison", range(1, 12))
def test_what_follows_a_poison_entry_is_taken_with_alarms(entries: list[Entry], poison: int) -> None:
    """Even when the step ends with it, and when its user comes again only steps later."""
    mixed: list[Entry | Unread] = [unread(e) if n == poison else e for n, e in enumerate(entries)]
    whole = fold(0, None, mixed, Known(), T0)
    known = Known()
    expected = None
    for entry in mixed:
        expected = fold(0, expected, [entry], known, T0).reached
        assert (expected.head == UNREAD_HEAD) == isinstance(entry, Unread)
    assert known.accounts["u"].available == whole.accounts[0].available or len(whole.accounts) > 1
    errors = {event.event_id for event in whole.events if event.kind == "error" and event.user_id is not None}
    told = [row for row in whole.alerts if row.kind == "transaction_error"]
    assert {row.alert_id for row in told} == {f"transaction_error.{event_id}" for event_id in errors}
    assert len(told) == len(errors)
    state = {row.user_id: (row.available, row.reserved, row.debt) for row in whole.accounts}
    assert state == {user: (row.available, row.reserved, row.debt) for user, row in known.accounts.items()}
    assert state["u"] == (entries[-1].available, entries[-1].reserved, entries[-1].debt)


def test_a_mismatch_long_after_the_last_poison_entry_stops_the_step(entries: list[Entry]) -> None:
    wrong = entries[8]._replace(available=entries[8].available + 1)
    with pytest.raises(ChainBroken):
        fold(0, None, [*entries[:4], unread(entries[4]), *entries[5:8], wrong], Known(), T0)


def test_a_flush_of_nothing_read_keeps_the_epoch(entries: list[Entry]) -> None:
    expected = fold(0, None, entries[:3], Known(), T0).reached
    step = fold(0, expected, [unread(entries[3])], Known(), T0)
    assert (step.reached.epoch, step.reached.seq, step.reached.head) == (1, 4, UNREAD_HEAD)
    after = fold(0, step.reached, entries[4:5], Known(unread_seq=4), T0)
    assert after.reached.head == entries[4].transaction_id
