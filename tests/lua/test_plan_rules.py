"""lua/operations/plan_rules.lua and lua/state/plan_rules.lua: what plans say of rules, in Redis."""

from __future__ import annotations

from meter.engine import operations, upkeep
from meter.engine.rules import Budget, read_rule
from tests.partition import DAY, T0, Partition

DAILY = "daily,10:10,day,UTC,e,c,-,500000"
BOUNDS = [T0 - DAY, T0 + DAY, T0 + 3 * DAY]


def budgets(partition: Partition, user: str = "u") -> dict[str, Budget]:
    words = [word for (word,) in partition.run(upkeep.rules(user)).items]
    return {one.budget_id: one for one in map(read_rule, words) if isinstance(one, Budget)}


def tell(partition: Partition, version: int, rules: str, user: str = "u", group: str = "default") -> None:
    assert partition.run(upkeep.plan_rules(user, group, version, rules, BOUNDS)).status == "ok"


def test_what_is_said_again_books_nothing(partition: Partition) -> None:
    """One entry where rules change; none for the next version that says the same, nor for older news."""
    partition.run(operations.grant("u", "g", 100))
    tell(partition, 3, f"{DAILY} -")
    booked = len(partition.entries())
    for version, rules in ((4, f"{DAILY} -"), (4, "- -"), (2, "- -")):
        tell(partition, version, rules)
    assert len(partition.entries()) == booked
    assert list(budgets(partition)) == ["daily"] and budgets(partition)["daily"].source == "default"
    tell(partition, 5, "- -")
    assert budgets(partition) == {} and len(partition.entries()) == booked + 1


def test_of_two_groups_the_first_by_name_has_an_id(partition: Partition) -> None:
    tell(partition, 1, f"{DAILY};more,1:1,total,UTC,e,c,-,- -", group="b")
    tell(partition, 1, "daily,20:20,day,UTC,e,c,-,- -", group="a")
    assert {name: (one.limit, one.source) for name, one in budgets(partition).items()} == {
        "daily": (20, "a"),
        "more": (1, "b"),
    }
    tell(partition, 2, "- -", group="a")
    assert budgets(partition)["daily"].limit == 10


def test_a_period_goes_on_behind_the_last_that_is_known(partition: Partition) -> None:
    partition.freeze(T0)
    tell(partition, 1, "p,10:10,period,UTC,e,c,-,- -")
    assert (budgets(partition)["p"].starts_at_ms, budgets(partition)["p"].ends_at_ms) == (T0 - DAY, T0 + DAY)
    for now, starts in ((T0 + DAY, T0 + DAY), (T0 + 3 * DAY, T0 + 3 * DAY), (T0 + 8 * DAY, T0 + 7 * DAY)):
        partition.freeze(now)
        found = budgets(partition)["p"]
        assert (found.starts_at_ms, found.ends_at_ms) == (starts, starts + 2 * DAY)


def test_beyond_eight_the_plans_wait(partition: Partition) -> None:
    own = " ".join(f"o{n},9:9,day,~,~,~,~,~" for n in range(8))
    partition.run(operations.configure("u", budgets=own))
    tell(partition, 1, f"{DAILY} -")
    assert "daily" not in budgets(partition)
    partition.run(operations.configure("u", budgets="o3,-"))
    assert "daily" in budgets(partition)


def test_a_path_that_is_too_deep_has_none(partition: Partition) -> None:
    tell(partition, 1, f"{DAILY} -", user="a/b/c/d/e/f/g")
    assert partition.entries() == []
