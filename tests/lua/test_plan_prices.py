"""Taking over what plans say of prices: lua/operations/plan_prices.lua."""

from __future__ import annotations

from meter.engine.operations import configure
from meter.engine.upkeep import plan_prices
from tests.partition import Partition


def test_each_plan_group_has_its_word_behind_the_accounts_own(partition: Partition) -> None:
    assert partition.run(plan_prices("u", "b", 1, "pro", 0, 0)).status == "ok"
    partition.run(plan_prices("u", "a", 7, "", 1_500_000, 99))
    partition.run(configure("u", rate_card="own"))
    partition.run(plan_prices("u", "b", 2, "", 0, 0))

    assert partition.fields("rates") == {b"u u": b"own - a,7,-,1500000,99 b,2,-,-,0"}


def test_older_news_changes_nothing_and_the_end_of_a_plan_is_remembered(partition: Partition) -> None:
    partition.run(plan_prices("u", "a", 3, "", 0, 0))
    partition.run(plan_prices("u", "a", 2, "pro", 0, 0))
    partition.run(configure("u", price_multiplier="2000000"))
    partition.run(configure("u", price_multiplier="-"))

    assert partition.fields("rates") == {b"u u": b"- - a,3,-,-,0"}
