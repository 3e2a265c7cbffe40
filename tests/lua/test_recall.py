"""Putting a stored answer back: lua/operations/recall.lua."""

from __future__ import annotations

from meter.engine.operations import Asked, balance, commit, deduct, grant, recall, reserve
from tests.partition import HOUR, Partition


def test_a_key_used_before_the_loss_is_not_applied_again(partition: Partition) -> None:
    partition.batch(grant("u", "g", 100), reserve("u", "r", 10, HOUR, chosen=True), commit("r"))
    one = deduct("u", 5, asked=Asked("key"))
    first = partition.run(one)
    recent = partition.client.hgetall("meter:{p0}:recent:a")
    partition.client.delete("meter:{p0}:recent:a")

    fields = [(name.decode(), text.decode()) for name, text in recent.items() if not name.startswith(b"l ")]
    answers = partition.batch(*(recall(name, text) for name, text in fields), mode="repair")

    for answer in answers:
        assert answer.status == "ok"
    assert partition.run(one).line[1:] == first.line[1:]
    assert partition.run(commit("r")).replayed
    assert partition.run(balance("u")).balances == (85, 0, 0)
