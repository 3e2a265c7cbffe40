"""Taking over what is active from when: lua/operations/activate.lua."""

from __future__ import annotations

from meter.engine.prices import Activation, activations_text
from meter.engine.upkeep import activate
from tests.partition import Partition


def test_older_news_changes_nothing(partition: Partition) -> None:
    """Two changes that reach Redis in the wrong order leave the later one; the same one twice is no other."""
    assert partition.run(activate("c", 2, "2 0")).status == "ok"
    partition.run(activate("c", 1, "1 0"))
    partition.run(activate("c", 2, "2 0"))

    assert partition.fields("rates") == {b"a c": b"2 2 0"}


def test_activations_are_told_by_time_the_last_that_was_asked_for_last() -> None:
    asked = [Activation(1, 5), Activation(2, 50), Activation(3, 9), Activation(4, 50), Activation(1, 9)]

    assert activations_text(asked, 4) == "1 5 3 9 1 9 2 50 4 50"
    assert activations_text(asked, 9) == "1 0 2 50 4 50"
    assert activations_text(asked, 50) == "4 0"
