"""Putting a stored answer back: lua/operations/recall.lua."""

from __future__ import annotations

from meter.engine.answers import FINGERPRINT
from meter.engine.operations import Asked, balance, commit, deduct, grant, reserve
from meter.engine.upkeep import recall, recall_end
from tests.partition import HOUR, T0, Partition


def test_a_key_used_before_the_loss_is_not_applied_again(partition: Partition) -> None:
    chosen, one = reserve("u", "r", 10, HOUR, chosen=True), deduct("u", 5, asked=Asked("key"))
    first = [answer.line[2:] for answer in partition.batch(grant("u", "g", 100), chosen, commit("r"), one)]
    before = partition.client.hgetall("meter:{p0}:recent:a")
    partition.client.hdel("meter:{p0}:recent:a", *[field for field in before if field])

    answers = partition.batch(
        recall("reservation", "r", chosen[FINGERPRINT], first[1]),
        recall_end(
            "r", user_id="u", state="committed", amount=10, charged=10, requested=10, ended_at_ms=T0, answer=first[2]
        ),
        recall("key", "key", one[FINGERPRINT], first[3]),
        mode="repair",
    )

    for answer in answers:
        assert answer.status == "ok"
    after = partition.client.hgetall("meter:{p0}:recent:a")
    assert {name: after[name] for name in before if name[:2] not in (b"l ", b"a ")} == {
        name: text for name, text in before.items() if name[:2] not in (b"l ", b"a ")
    }, "packed as they were"
    assert [partition.run(again).line for again in (chosen, commit("r"), one)] == [f"1 {line}" for line in first[1:]]
    assert partition.run(balance("u")).balances == (85, 0, 0)


def test_a_key_without_a_kept_answer_refuses_every_body(partition: Partition) -> None:
    one = deduct("u", 0, asked=Asked("key"))
    (answer,) = partition.batch(recall("key", "key", one[FINGERPRINT], None), mode="repair")

    assert answer.status == "ok"
    assert partition.run(one).status == "key_reused"
