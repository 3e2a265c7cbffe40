"""How long credits last: the walk against a walk in small steps, and what is told of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter.clock import DAY_MS, NEVER_MS
from meter.engine.at_end import NOTHING_AT_END, AtEnd
from meter.plans import runway
from meter.plans.runway import Forecast, Judged, Lot, Pace, confidence_of, forecast, judged

NOW = 1_000


def lot(
    amount: int, from_ms: int = 0, until_ms: int = NEVER_MS, name: str = "g", priority: int = 10, **at_end: Any
) -> Lot:
    return Lot(amount, priority, from_ms, until_ms, 0, name, AtEnd(**at_end))


def pace(units: int, span_ms: int = 1) -> Pace:
    return Pace(units, span_ms)


def test_it_is_divided_where_nothing_ends_or_begins() -> None:
    assert forecast([lot(100)], 0, pace(3), NOW) == Forecast(NOW + 33, None)
    assert forecast([lot(100)], 0, pace(1, 10 * DAY_MS), NOW).runs_out_at_ms is None, "beyond the horizon"
    assert forecast([], 0, pace(1), NOW) == Forecast(NOW, None)


def test_nothing_spent_lasts_until_credits_end() -> None:
    assert forecast([lot(5)], 0, pace(0), NOW) == Forecast(None, None)
    assert forecast([lot(5)], 0, pace(-7), NOW) == Forecast(None, None), "refunds are no negative burn"
    assert forecast([lot(5, until_ms=NOW + 50)], 0, pace(0), NOW) == Forecast(NOW + 50, None)


def test_ends_and_starts_are_walked_over_in_burn_order() -> None:
    """The one that ends first burns first, so that of 10 + 10 at 1 a millisecond nothing is lost."""
    ends = [lot(10, until_ms=NOW + 12, name="a"), lot(10, name="b")]
    assert forecast(ends, 0, pace(1), NOW).runs_out_at_ms == NOW + 20
    late = [lot(10, until_ms=NOW + 5, name="a"), lot(10, name="b", priority=1)]
    assert forecast(late, 0, pace(1), NOW).runs_out_at_ms == NOW + 10, "by its priority, the other burns first"
    found = forecast([lot(10), lot(10, NOW + 9, name="b")], 0, pace(1), NOW)
    assert found == Forecast(NOW + 20, NOW + 9) and found.is_covered is True
    gap = forecast([lot(10), lot(10, NOW + 11, name="b")], 0, pace(1), NOW)
    assert gap == Forecast(NOW + 10, NOW + 11) and gap.is_covered is False
    seam = forecast([lot(10, until_ms=NOW + 10), lot(10, NOW + 10, name="b")], 0, pace(1), NOW)
    assert seam == Forecast(NOW + 20, NOW + 10) and seam.is_covered is True


def test_debt_is_paid_first_and_a_rest_rolls_over() -> None:
    assert forecast([lot(10), lot(10, NOW + 5, name="b")], 4, pace(1), NOW).runs_out_at_ms == NOW + 16
    rolled = [lot(10, until_ms=NOW + 4, rollover_max=3, rollover_ms=100)]
    assert forecast(rolled, 0, pace(1), NOW).runs_out_at_ms == NOW + 7
    short = [lot(10, until_ms=NOW + 4, rollover_max=3, rollover_ms=2)]
    assert forecast(short, 0, pace(1), NOW).runs_out_at_ms == NOW + 6


LOTS = st.lists(
    st.tuples(
        st.integers(1, 40),
        st.integers(1, 3),
        st.integers(-5, 30),
        st.integers(1, 40),
        st.integers(-1, 9),
        st.integers(0, 20),
    ),
    max_size=5,
)


@settings(max_examples=400, deadline=None)
@given(LOTS, st.integers(0, 4), st.integers(0, 15))
def test_it_is_a_walk_in_small_steps(monkeypatch_horizon: None, given_lots: list[Any], units: int, debt: int) -> None:
    """A model that spends unit by unit, with nothing of the planner's own."""
    lots = [
        Lot(
            amount,
            priority,
            NOW + start,
            NOW + start + length,
            0,
            f"g{n}",
            AtEnd(most, span) if most >= 0 else NOTHING_AT_END,
        )
        for n, (amount, priority, start, length, most, span) in enumerate(given_lots)
    ]

    assert forecast(lots, debt, pace(units), NOW).runs_out_at_ms == _by_steps(lots, units, debt)


@pytest.fixture(scope="module")
def monkeypatch_horizon() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runway, "HORIZON_MS", 100)
        yield


def _by_steps(lots: list[Lot], units: int, debt: int) -> int | None:
    """Each millisecond: ends, then begins, then spends `units`, the first to burn first."""
    alive: list[list[Any]] = [[one, one.amount] for one in lots if one.effective_at_ms <= NOW < one.expires_at_ms]
    waiting = [one for one in lots if one.effective_at_ms > NOW]
    for at_ms in range(NOW, NOW + 100):
        for pair in [pair for pair in alive if pair[0].expires_at_ms <= at_ms]:
            alive.remove(pair)
            most, span = pair[0].at_end.rollover_max, pair[0].at_end.rollover_ms
            rest = min(pair[1], most or 0)
            if rest and pair[0].expires_at_ms + span > at_ms:
                alive.append(
                    [pair[0]._replace(expires_at_ms=pair[0].expires_at_ms + span, at_end=NOTHING_AT_END), rest]
                )
        for one in [one for one in waiting if one.effective_at_ms == at_ms]:
            paid = min(debt, one.amount)
            debt -= int(paid)
            alive.append([one, one.amount - paid])
        if sum(rest for _, rest in alive) <= 0:
            return at_ms
        left = units
        for pair in sorted(alive, key=lambda pair: pair[0].order):
            spent = min(left, pair[1])
            pair[1] -= spent
            left -= spent
        if left:
            return at_ms
    return None


@pytest.mark.parametrize(
    ("told", "left_days", "expected"),
    [
        (None, 10, Judged(None)),
        (None, 7, Judged(7, 7)),
        (None, 0.5, Judged(1, 1)),
        (7, 6, Judged(7)),
        (7, 1, Judged(1, 1)),
        (7, 8.5, Judged(7)),
        (7, 9, Judged(None)),
        (7, None, Judged(None)),
        (1, 1.2, Judged(1)),
        (1, 1.3, Judged(7)),
        (1, 8, Judged(7)),
        (1, 9, Judged(None)),
    ],
)
def test_it_is_told_on_crossing_and_again_only_behind_a_margin(
    told: int | None, left_days: float | None, expected: Judged
) -> None:
    assert judged((1, 7), told, None if left_days is None else round(left_days * DAY_MS)) == expected


def test_confidence_follows_from_how_many_days_there_are_and_how_alike() -> None:
    assert confidence_of([5], 2 * DAY_MS) == "low"
    assert confidence_of([5] * 4, 4 * DAY_MS) == "medium"
    assert confidence_of([5, 6, 5, 4, 5, 6, 5], 7 * DAY_MS) == "high"
    assert confidence_of([0, 0, 0, 0, 0, 0, 70], 7 * DAY_MS) == "low"
    assert confidence_of([9, 1, 9, 1, 9, 1, 2], 7 * DAY_MS) == "medium"
    assert confidence_of([0] * 7, 7 * DAY_MS) == "high"
