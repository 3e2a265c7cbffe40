"""Taking lines of rates over: lua/operations/rates.lua."""

from __future__ import annotations

from meter.engine.prices import RateLine, rate_fields
from meter.engine.upkeep import rates, state
from tests.partition import Partition


def test_lines_are_there_afterwards_and_a_rebuild_clears_them(partition: Partition) -> None:
    fields = list(rate_fields("c", 1, {"m": RateLine({"input": 5}), "n": RateLine({}, free=True)}))

    assert partition.run(rates(fields)).status == "ok"
    assert {key.decode(): text.decode() for key, text in partition.fields("rates").items()} == dict(fields)
    partition.batch(state("clear"))
    assert partition.fields("rates") == {}
