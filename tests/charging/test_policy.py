"""What a response costs: the whole decision table."""

from __future__ import annotations

from decimal import Decimal

import pytest

from meter.charging.policy import RELEASE, ChargePolicy, Ending, Missing, Verdict, verdict_on
from meter.usage import Number

ESTIMATE = 100


def verdict(
    ending: Ending,
    status: int | None,
    usage: Number | None = None,
    *,
    on_missing_usage: Missing = Missing.RELEASE,
    on_disconnect: Missing = Missing.ESTIMATE,
) -> Verdict:
    policy = ChargePolicy(on_missing_usage=on_missing_usage, on_disconnect=on_disconnect)
    return verdict_on(policy, ending=ending, status=status, usage=usage, estimate=ESTIMATE)


@pytest.mark.parametrize("ending", Ending)
@pytest.mark.parametrize("usage", [0, 7, Decimal("0.5")])
def test_usage_that_was_told_is_charged_however_it_ended(ending: Ending, usage: Number) -> None:
    assert verdict(ending, 200, usage) == Verdict(charge=True, amount=usage)


@pytest.mark.parametrize("ending", Ending)
@pytest.mark.parametrize("status", [101, 199, 300, 304, 402, 500])
def test_a_status_that_does_not_count_costs_nothing(ending: Ending, status: int) -> None:
    assert verdict(ending, status, 7) == RELEASE


def test_which_statuses_count_can_be_said() -> None:
    policy = ChargePolicy(charge_statuses={200, 404})

    assert verdict_on(policy, ending=Ending.CLEAN, status=404, usage=7, estimate=1).charge
    assert not verdict_on(policy, ending=Ending.CLEAN, status=201, usage=7, estimate=1).charge


@pytest.mark.parametrize("ending", [Ending.CLEAN, Ending.CUT])
def test_without_usage_the_hold_is_released_by_default(ending: Ending) -> None:
    assert verdict(ending, 200) == RELEASE


def test_these_are_the_defaults() -> None:
    policy = ChargePolicy()

    assert (policy.on_missing_usage, policy.on_disconnect) == (Missing.RELEASE, Missing.ESTIMATE)


def test_no_response_costs_nothing() -> None:
    assert verdict(Ending.CUT, None, on_missing_usage=Missing.ESTIMATE) == RELEASE


@pytest.mark.parametrize("status", [None, 200])
def test_leaving_costs_the_estimate_by_default(status: int | None) -> None:
    assert verdict(Ending.GONE, status) == Verdict(charge=True, amount=ESTIMATE)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        (Missing.RELEASE, RELEASE),
        (Missing.ESTIMATE, Verdict(charge=True, amount=ESTIMATE)),
        (Missing.RESERVED, Verdict(charge=True, amount=None)),
    ],
)
def test_what_missing_usage_costs_can_be_said(missing: Missing, expected: Verdict) -> None:
    assert verdict(Ending.CLEAN, 200, on_missing_usage=missing) == expected
    assert verdict(Ending.CUT, 200, on_missing_usage=missing) == expected
    assert verdict(Ending.GONE, 200, on_disconnect=missing) == expected
