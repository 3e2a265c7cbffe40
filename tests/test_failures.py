"""How often a source may fail, on whatever clock."""

from __future__ import annotations

from meter.failures import SOURCES_MAX, Failures


def failed_until_refused(failures: Failures, source: str, now_ms: int) -> int:
    """How often it may fail at one moment."""
    for count in range(1000):
        if failures.wait_ms(source, now_ms):
            return count
        failures.failed(source, now_ms)
    raise AssertionError("without end")


def test_so_many_at_once_and_one_more_per_share_of_a_minute() -> None:
    failures = Failures(10)
    assert failed_until_refused(failures, "a", 1_000_000) == 10
    assert failures.wait_ms("a", 1_000_000) == 6_000
    assert failures.wait_ms("a", 1_005_999) == 1
    assert failed_until_refused(failures, "a", 1_006_000) == 1
    assert failed_until_refused(failures, "b", 1_006_000) == 10, "others are others"
    assert failed_until_refused(failures, "a", 1_066_000) == 10


def test_a_clock_that_goes_back_makes_nobody_wait_longer_than_a_minute() -> None:
    failures = Failures(7)
    failed_until_refused(failures, "a", 10**12)
    assert 0 < failures.wait_ms("a", 0) <= 60_000
    failures.failed("a", 0)
    assert failures.wait_ms("a", 60_000) == 0


def test_the_sources_that_failed_last_are_remembered_and_no_more() -> None:
    failures = Failures(1)
    for n in range(SOURCES_MAX + 1):
        failures.failed(str(n), 0)
    assert failures.wait_ms("0", 0) == 0
    assert failures.wait_ms("1", 0) > 0
