"""What remembers a name is forgotten: lua/operations/forget.lua."""

from __future__ import annotations

import pytest

from meter.engine.operations import Asked, commit, deduct, grant, reserve, void
from meter.engine.upkeep import anonymise, flushed, forget, restore
from tests.ledger.naming import keys_naming
from tests.partition import HOUR, Partition

WAS = "user.a."
NEW = "anonymous-1"


def fields(partition: Partition) -> list[str]:
    recent = {**partition.fields("recent:a"), **partition.fields("recent:b")}
    return [name.decode() for name, text in recent.items() if WAS in name.decode() + text.decode()]


@pytest.mark.usefixtures("unchecked")  # the outbox is trimmed
def test_u9_answers_reservations_senders_and_entries(partition: Partition) -> None:
    keyed = deduct(WAS, 2, asked=Asked("k"))
    partition.batch(
        *(grant(WAS, "g", 9), grant("bob", "g", 9), keyed),
        *(deduct("bob", 2, asked=Asked("bobs")), reserve(WAS, f"{WAS}-h", 2, HOUR, chosen=True)),
        *(reserve(WAS, "h", 0, HOUR, chosen=True), commit("h", 0), commit(f"{WAS}-h", 1), void(WAS, "g")),
    )
    seq = len(partition.entries())
    partition.sender = "another"
    partition.run(anonymise(WAS, NEW, "token"))
    partition.run(flushed(seq + 1, 0, 0))

    answer = partition.run(forget(WAS, NEW, seq + 1, fields(partition)))

    assert answer.status == "ok"
    assert keys_naming(partition.client, WAS) == []
    assert partition.entries() == []
    assert partition.run(keyed).status == "key_reused"
    assert partition.run(reserve(WAS, "h", 0, HOUR, chosen=True)).status == "key_reused"
    assert partition.run(commit("h", 0)).status == "not_found"
    bobs = partition.run(deduct("bob", 2, asked=Asked("bobs")))
    assert (bobs.status, bobs.replayed) == ("ok", True)


@pytest.mark.usefixtures("unchecked")
def test_u9_an_entry_with_others_of_its_call_waits_until_the_store_has_all_of_it(partition: Partition) -> None:
    """One entry has all that a call books: that of the name may go on with what others did."""
    partition.run(grant(WAS, "g", 9))
    partition.run(void(WAS, "g"))
    partition.batch(anonymise(WAS, NEW, "token"), grant("bob", "g", 9), grant("bob", "g2", 9))
    partition.run(flushed(4, 0, 0))
    assert partition.run(forget(WAS, NEW, 3, []))["trimmed"] == 0
    assert [entry.seq for entry in partition.entries()] == [3, 4, 5]
    partition.run(flushed(5, 0, 0))
    assert partition.run(forget(WAS, NEW, 3, []))["trimmed"] == 1
    assert partition.entries() == []


@pytest.mark.usefixtures("unchecked")
def test_u9_nothing_above_the_watermark_is_trimmed(partition: Partition) -> None:
    partition.run(grant("bob", "g", 9))
    partition.run(grant("bob", "g2", 9))
    partition.run(flushed(1, 0, 0))
    partition.run(forget(WAS, NEW, 2, []))
    assert [entry.seq for entry in partition.entries()] == [2]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("members", "stays"), [({}, False), ({"suspended": True}, True), ({"metadata": "{}"}, True)])
def test_u9_what_a_rebuild_made_of_the_empty_account(
    partition: Partition, members: dict[str, object], stays: bool
) -> None:
    partition.run(restore(WAS, **members))  # type: ignore[arg-type]
    partition.run(forget(WAS, NEW, 0, []))
    assert (WAS.encode() in partition.fields("accounts")) is stays
    assert (f" {WAS}".encode() in partition.members("order")) is stays
