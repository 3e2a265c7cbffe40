"""The partition's clock: lua/operations/clock.lua, and time in lua/prelude.lua."""

from __future__ import annotations

import time

from meter.engine.operations import balance, deduct, grant, reserve
from meter.engine.upkeep import clock
from tests.partition import HOUR, MINUTE, T0, Partition


def test_reading_a_frozen_clock(partition: Partition) -> None:
    answer = partition.run(clock())

    assert answer.status == "ok"
    assert answer.fields == {"now_ms": T0, "frozen": 1}


def test_the_servers_clock_is_the_default(partition: Partition) -> None:
    partition.client.hdel(partition.keys.meta, "clock_ms")
    before = int(time.time() * 1000)

    answer = partition.run(clock())

    assert before - 1 <= answer["now_ms"] <= time.time() * 1000 + 1
    assert answer["frozen"] == 0


def test_setting_and_advancing(partition: Partition) -> None:
    assert partition.run(clock("set", T0 + MINUTE)).fields == {"now_ms": T0 + MINUTE, "frozen": 1}
    assert partition.run(clock("set", T0 + MINUTE)).status == "ok"
    assert partition.run(clock("advance", HOUR))["now_ms"] == T0 + MINUTE + HOUR
    assert partition.run(clock())["now_ms"] == T0 + MINUTE + HOUR


def test_it_only_moves_forward(partition: Partition) -> None:
    answer = partition.run(clock("set", T0 - 1))

    assert answer.status == "backwards"
    assert answer["now_ms"] == T0
    assert partition.run(clock("advance", -1)).status == "backwards"


def test_setting_freezes_a_running_clock(partition: Partition) -> None:
    partition.client.hdel(partition.keys.meta, "clock_ms")
    now = partition.run(clock())["now_ms"]
    assert partition.run(clock("set", now - HOUR)).status == "backwards"

    assert partition.run(clock("set", now + HOUR)).fields == {"now_ms": now + HOUR, "frozen": 1}


def test_operations_of_one_batch_see_their_own_time(partition: Partition) -> None:
    answers = partition.batch(
        grant("u", "g", 10, expires_at_ms=T0 + MINUTE),
        reserve("u", "r", 4, HOUR, chosen=True),
        deduct("u", 1),
        clock("advance", MINUTE),
        deduct("u", 1),
        clock("advance", HOUR),
        balance("u"),
    )

    assert [answer.status for answer in answers] == ["ok", "ok", "ok", "ok", "insufficient", "ok", "ok"]
    assert answers[-1].balances == (0, 0, 0)
    assert [entry.created_at_ms - T0 for entry in partition.entries()] == [0, 0, 0, MINUTE, HOUR, HOUR]


def test_a_clock_that_goes_back_changes_no_balance(partition: Partition) -> None:
    """Redis' own clock may step back; what was decided stays decided."""
    partition.run(grant("u", "gone", 10, expires_at_ms=T0 + MINUTE))
    partition.run(grant("u", "begun", 20, priority=1, effective_at_ms=T0 + MINUTE))
    partition.run(grant("u", "other", 30, priority=2))
    partition.freeze(T0 + HOUR)
    partition.run(reserve("u", "r", 15, HOUR, chosen=True))
    partition.freeze(T0)

    assert partition.run(balance("u")).balances == (35, 15, 0)
    partition.batch(grant("u", "best", 1, priority=0), deduct("u", 3))
    assert partition.run(deduct("u", 33)).balances == (0, 15, 0)
    partition.freeze(T0 + 2 * HOUR)
    assert partition.run(balance("u")).balances == (15, 0, 0)
