"""Putting accounts back after a loss: lua/operations/restore.lua."""

from __future__ import annotations

import pytest

from meter.clock import NEVER_MS
from meter.engine.at_end import NOTHING_AT_END, AtEnd, read_at_end
from meter.engine.operations import Operation, balance, configure, deduct, grant, grants, refund, release, reserve, void
from meter.engine.top_ups import Terms, top_up
from meter.engine.upkeep import KeptGrant, KeptReservation, restore, state
from tests import invariants
from tests.lua.levels import budget, rate
from tests.partition import DAY, HOUR, MINUTE, T0, Partition, dump

REBUILT = ("accounts", "grants", "order", "holds", "agenda", "due", "rules", "counters")


def _stored(partition: Partition, user: str) -> Operation:
    """The restore of an account as Redis holds it now, as a store would know it."""
    account = invariants.account_of(user, partition.client.hget(partition.keys.accounts, user).decode())
    front = account.front
    grants = [] if front is None else [_grant(front.id, front.text)]
    for name, text in partition.fields("grants").items():
        owner, grant_id = name.decode().split(" ")
        grants += [_grant(grant_id, text.decode())] if owner == user else []
    holds = [
        _hold(name.decode(), text.decode())
        for name, text in partition.fields("holds").items()
        if text.decode().split(" ")[0] == user
    ]
    return restore(
        user,
        overdraft_limit=account.overdraft_limit,
        suspended=account.suspended,
        thresholds=account.thresholds,
        debt=account.debt,
        granted=account.granted,
        spent=account.spent,
        expired=account.expired,
        voided=account.voided,
        rules=partition.fields("rules").get(user.encode(), b"").decode(),
        counters=partition.fields("counters").get(user.encode(), b"").decode(),
        grants=sorted(grants, reverse=True),
        reservations=holds,
    )


def _grant(grant_id: str, text: str) -> KeptGrant:
    *numbers, cls, state, source, at_end = [*text.split(" "), ""][:12]
    amount, remaining, reserved, priority, effective, expires, created, _ = map(int, numbers)
    word = {"e": "expired", "v": "voided"}.get(state, "scheduled" if cls == "S" else "active")
    kept = (amount, remaining, reserved, priority, effective, expires, created, word, source, read_at_end(at_end))
    return KeptGrant(grant_id, *kept)


def _hold(reservation_id: str, text: str) -> KeptReservation:
    _, amount, ends, created, *draws = text.split(" ")
    created, _, seq = created.partition("@")
    pairs = [(draws[n], int(draws[n + 1])) for n in range(0, len(draws), 2)]
    return KeptReservation(reservation_id, int(amount), int(ends), int(created), "release", pairs, seq=int(seq or 0))


def _lose_and_restore(partition: Partition, *users: str) -> None:
    meta = partition.client.hgetall(partition.keys.meta)
    watermark = (1, int(meta[b"seq"]), meta[b"head"].decode())
    stored = [_stored(partition, user) for user in users]
    for key in partition.keys.all:
        partition.client.delete(key)
    assert partition.open(how="rebuild", watermark=watermark) == "opened"
    partition.freeze(T0)
    assert partition.send("other", 1, balance("u")) == "refused rebuilding"

    answers = partition.batch(*stored, state("open"), mode="repair")

    for answer in answers:
        assert answer.status == "ok"


@pytest.fixture
def varied(partition: Partition) -> Partition:
    """u with grants of every class, two holds and settings; v in debt."""
    for n in range(12):
        partition.run(grant("u", f"g{n:02}", 10, priority=n % 4, expires_at_ms=T0 + DAY + n))
    partition.run(grant("u", "never", 50, priority=9, source="plan:x"))
    partition.run(grant("u", "coming", 30, effective_at_ms=T0 + HOUR))
    partition.batch(budget("u", 90), rate("v", 9))
    partition.run(reserve("u", "r1", 25, HOUR, chosen=True))
    partition.run(reserve("u", "r2", 25, 2 * HOUR, chosen=True))
    partition.batch(deduct("u", 13), void("u", "g11"), release("r1"))
    partition.run(configure("u", suspended=True, thresholds=(9, 3)))
    partition.run(configure("v", overdraft_limit=50))
    partition.run(deduct("v", 40, "overdraft"))
    return partition


def test_everything_is_as_before(varied: Partition) -> None:
    before = {name: dump(varied.client)[f"meter:{{p0}}:{name}"] for name in REBUILT}

    _lose_and_restore(varied, "u", "v")

    assert {name: dump(varied.client)[f"meter:{{p0}}:{name}"] for name in REBUILT} == before


def test_it_goes_on_as_if_nothing_had_happened(varied: Partition) -> None:
    _lose_and_restore(varied, "u", "v")
    varied.run(configure("u", suspended=False))

    varied.freeze(T0 + 2 * HOUR)

    assert varied.run(deduct("u", 1)).status == "ok"
    assert varied.kinds()[-3:] == ["grant_started", "reservation_expired", "deduct"]
    assert varied.run(grant("v", "g", 45)).balances == (5, 0, 0)


def test_what_fell_due_meanwhile_is_settled_on_the_next_touch(varied: Partition) -> None:
    """The start of a grant that passed during the outage is booked, not skipped."""
    _lose_and_restore(varied, "v")
    varied.freeze(T0 + 2 * HOUR)
    coming = KeptGrant("coming", 30, 30, 0, 10, T0 + HOUR, NEVER_MS, T0, "scheduled", "api", NOTHING_AT_END)
    live = KeptGrant("live", 20, 10, 10, 10, T0, NEVER_MS, T0, "active", "api", AtEnd(5, HOUR, "a", renews=True))
    held = KeptReservation("r", 10, T0 + MINUTE, T0, "charge", [("live", 10)])
    one = restore("w", granted=20, grants=[coming, live], reservations=[held], metadata='{"n":1}')
    varied.batch(one, mode="repair")

    answer = varied.run(balance("w"))

    assert answer.balances == (40, 0, 0), "what nobody settled is charged at its end, as its caller asked for"
    assert (answer["granted"], answer["scheduled"], answer["reservations"]) == (50, 0, 0)
    assert varied.client.hget(varied.keys.profiles, "w") == b'{"n":1}'
    assert varied.run(grants("w", "live", "", 9)).items[0][-1] == "5+3600000@a"


def test_what_was_spent_is_as_told_though_a_grant_is_missing_from_the_sums(varied: Partition, unchecked: None) -> None:
    """One that is in quarantine: the store has what was drawn of it, and no more of it."""
    live = KeptGrant("live", 20, 20, 0, 10, T0, NEVER_MS, T0, "active", "api", NOTHING_AT_END)
    varied.batch(restore("w", granted=0, spent=30, grants=[live]), mode="repair")

    answer = varied.run(balance("w"))
    assert (answer["spent"], answer["granted"], answer.balances) == (30, 50, (20, 0, 0))
    charge = refund("w", "0-1-x-1", None, charged=30, refunded=0, draws=(("live", 30),))
    assert varied.run(charge)["amount"] == 30


def test_what_is_bought_when_few_are_left_comes_back_as_it_was(partition: Partition) -> None:
    partition.run(grant("u", "g", 100))
    partition.run(top_up("u", "set", Terms(50, 200, None, "day", "cus_1").text))
    partition.run(deduct("u", 60))
    before = partition.run(top_up("u"))["top_up"]

    _lose_and_restore(partition, "u")

    assert before.startswith("w,50,200,-,day,cus_1,topup:")
    assert partition.run(top_up("u"))["top_up"] == before
