"""Another name for an account that has come to nothing: lua/operations/anonymise.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import Asked, Operation, balance, configure, deduct, grant, refund, release, reserve, void
from meter.engine.upkeep import anonymise, expire
from tests.partition import DAY, HOUR, T0, Partition

WAS = "user.a."
NEW = "anonymous-1"
STEP = anonymise(WAS, NEW, "anonymised token", '"actor":"legal"')


def names(partition: Partition) -> list[str]:
    """Where the old name still is; the ledger and what is remembered belong to others (lua/operations/forget.lua)."""
    kept = ("accounts", "grants", "holds", "profiles")
    found = [f"{name}: {pair}" for name in kept for pair in partition.fields(name).items() if WAS in repr(pair)]
    members = (f"{name}: {member!r}" for name in ("order", "agenda", "due") for member in partition.members(name))
    return found + [member for member in members if WAS in member]


def live_and_end(partition: Partition) -> None:
    partition.run(configure(WAS, thresholds=(50,), metadata='{"a":1}'))
    partition.run(grant(WAS, "spent", 10))
    partition.run(grant(WAS, "ended", 10, expires_at_ms=T0 + HOUR))
    partition.run(grant(WAS, "voided", 10, effective_at_ms=T0 + DAY))
    partition.run(reserve(WAS, "h", 3, HOUR, chosen=True))
    partition.run(release("h"))
    partition.run(deduct(WAS, 20))
    partition.run(void(WAS, "voided"))


def test_u9_the_figures_go_on_under_the_other_name_and_nothing_else(partition: Partition) -> None:
    live_and_end(partition)
    before = partition.run(balance(WAS)).fields

    answer = partition.run(STEP)

    assert (answer.status, answer["user_id"], answer.balances) == ("ok", NEW, (0, 0, 0))
    assert names(partition) == []
    after = partition.run(balance(NEW)).fields
    assert after == {**before, "user_id": NEW, "low_credit_thresholds": "-"}
    entry = partition.entries()[-1]
    assert (entry.kind, entry.user_id, entry.amount, entry.operation_id) == ("account", NEW, 0, "")
    assert entry.detail == {
        "overdraft_limit": 0,
        "suspended": False,
        "low_credit_thresholds": "-",
        "was": WAS,
        "actor": "legal",
    }


def test_u9_done_again_it_is_replayed_and_does_nothing(partition: Partition) -> None:
    live_and_end(partition)
    partition.run(STEP)
    partition.run(grant(WAS, "new", 5))

    again = partition.run(STEP)

    assert (again.status, again.replayed, again["user_id"]) == ("ok", True, NEW)
    assert partition.run(balance(WAS)).balances == (5, 0, 0), "who comes by the old name later is somebody else"


def test_u9_for_a_while_the_token_alone_is_known(partition: Partition) -> None:
    live_and_end(partition)
    assert partition.run(STEP).status == "ok"
    other = partition.run(anonymise(WAS, "anonymous-2", "anonymised token"))
    assert (other.status, other.replayed) == ("ok", True)
    assert partition.run(anonymise(WAS, "anonymous-2", "another token")).status == "not_found"


@pytest.mark.parametrize(
    ("some", "left"),
    [
        ([grant(WAS, "g", 5)], (0, 0, (5, 0, 0))),
        ([grant(WAS, "g", 5, effective_at_ms=T0 + HOUR)], (0, 5, (0, 0, 0))),
        ([reserve(WAS, "h", 0, HOUR, chosen=True)], (1, 0, (0, 0, 0))),
        ([configure(WAS, overdraft_limit=5), deduct(WAS, 2, "overdraft")], (0, 0, (0, 0, 2))),
    ],
    ids=["available", "scheduled", "held", "debt"],
)
def test_u9_what_is_left_is_told_and_stays(partition: Partition, some: list[Operation], left: object) -> None:
    for one in some:
        partition.run(one)
    seq = len(partition.entries())

    answer = partition.run(STEP)

    assert answer.status == "live"
    assert (int(answer["reservations"]), int(answer["scheduled"]), answer.balances) == left
    assert len(partition.entries()) == seq


def test_u9_what_is_due_is_settled_before(partition: Partition) -> None:
    partition.run(grant(WAS, "g", 5, expires_at_ms=T0 + HOUR))
    partition.run(reserve(WAS, "h", 2, HOUR, chosen=True))
    partition.freeze(T0 + 2 * HOUR)

    assert partition.run(STEP).status == "ok"

    assert names(partition) == []
    assert partition.kinds()[2:] == ["reservation_expired", "grant_expired", "account"]
    assert int(partition.run(balance(NEW))["expired"]) == 5


def test_u9_a_refund_of_the_old_name_does_not_find_it(partition: Partition) -> None:
    partition.run(grant(WAS, "g", 5))
    charge = partition.run(deduct(WAS, 5, asked=Asked("k")))["transaction_id"]
    partition.run(STEP)

    one = refund(WAS, charge, 5, charged=5, refunded=0, draws=(("g", 5),))

    assert partition.run(one).status == "exceeds", "nothing was spent by that name"
    assert partition.run(expire(NEW)).status == "ok"
