"""The planner alone: what no outcome shows in credits, and what random stories (test_model.py) do not reach."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from meter.clock import DAY_MS, milliseconds
from meter.plans import planner
from meter.plans.entitlement import Given, grants_of, owed
from meter.plans.planner import Asked
from meter.plans.terms import Terms, terms_of
from meter.store.plan_rows import PlanTermsRow, SubscriptionRow
from tests.plans.model import Paper
from tests.plans.test_model import plan_row

AT = datetime(2027, 1, 31)


def ms(time: datetime) -> int:
    return milliseconds(time.replace(tzinfo=UTC))


def terms(name: str, paper: Paper) -> PlanTermsRow:
    return terms_of(plan_row(name, paper, AT, 1))


SMALL, LARGE = terms("small", Paper(100, "monthly")), terms("large", Paper(500, "monthly", valid_days=20))
KNOWN = Terms({"small": [SMALL], "large": [LARGE]})
MONTH = ms(datetime(2027, 2, 28)), ms(datetime(2027, 3, 31))


def small(**members: object) -> SubscriptionRow:
    begun = planner.begun("u", "default", SMALL, Asked(), ms(AT), None).row
    return begun.model_copy(update=members)


def test_validity_counts_from_where_the_subscription_began_not_its_anchor() -> None:
    """Rule 8, for the first grant and for what a change adds."""
    anchor, begins = ms(AT - timedelta(days=10)), ms(AT)
    first = planner.begun("u", "default", LARGE, Asked(anchor_ms=anchor), begins, None)
    assert [one.expires_at_ms for one in first.grants] == [begins + 20 * DAY_MS]
    larger = terms("larger", Paper(900, "monthly", valid_days=20))

    step = planner.changed_by_difference(first.row, larger, KNOWN, begins + DAY_MS)

    assert [one.expires_at_ms for one in step.grants] == [begins + 20 * DAY_MS]


def test_of_what_has_ended_only_a_rest_that_lives_is_given() -> None:
    """Rule 2: nothing of no credits, and nothing that is over."""

    def given(paper: Paper, days: int) -> list[tuple[str, int, int]]:
        until_ms = ms(AT) + 10 * DAY_MS
        found = grants_of(
            terms("p", paper),
            "g",
            100,
            group="default",
            renews=True,
            from_ms=ms(AT),
            counted_from_ms=ms(AT),
            until_ms=until_ms,
            now_ms=until_ms + days * DAY_MS,
        )
        return [(one.grant_id, one.amount, (one.expires_at_ms - until_ms) // DAY_MS) for one in found]

    assert given(Paper(100, "monthly"), 1) == []
    assert given(Paper(100, "monthly", roll=(0, 30)), 1) == []
    assert given(Paper(100, "monthly", roll=(20, 30)), 29) == [("g.rollover", 20, 30)]
    assert given(Paper(100, "monthly", roll=(20, 30)), 30) == []


def test_a_row_of_before_grants_were_kept_counts_its_limit_as_given() -> None:
    old = small(given=None, billing_period=None)

    step = planner.changed_by_difference(old, LARGE, KNOWN, ms(AT))

    assert [one.amount for one in step.grants] == [400]
    assert [one.amount for one in planner.given_of(step.row)] == [100, 400]


def test_a_row_learns_its_unit_at_its_next_period() -> None:
    step = planner.advanced(small(billing_period=None), KNOWN, MONTH[0])

    assert (step.row.billing_period, step.row.period) == ("monthly", 1)
    assert (step.row.period_started_at_ms, step.row.next_period_at_ms) == MONTH


def test_a_step_tells_when_it_happened_and_not_when_a_job_came_by() -> None:
    """Rule 1, of the row and of its alert."""
    step = planner.advanced(small(), KNOWN, MONTH[0] + 5 * DAY_MS)
    assert step.row.updated_at_ms == MONTH[0]
    assert [(alert.kind, alert.created_at_ms) for alert in step.alerts] == [("subscription_renewed", MONTH[0])]

    over = planner.advanced(small(auto_renew=False), KNOWN, MONTH[0] + 5 * DAY_MS)
    assert (over.row.state, over.row.updated_at_ms) == ("ended", MONTH[0])

    voided = planner.ended(over.row, "now", "void", MONTH[0] + 9 * DAY_MS)
    assert (voided.row.unspent, voided.row.updated_at_ms) == ("void", MONTH[0] + 9 * DAY_MS)
    assert [errand.created_at_ms for errand in voided.errands] == [MONTH[0] + 9 * DAY_MS]
    assert planner.ended(voided.row, "now", "void", MONTH[1]).row is voided.row


def test_what_was_missed_for_years_is_one_step_where_nothing_of_it_is_left() -> None:
    """P12b: the periods in between are not gone through one by one."""
    daily = terms("daily", Paper(10, "daily"))
    row = planner.begun("u", "default", daily, Asked(), ms(AT), None).row

    step = planner.advanced(row, Terms({"daily": [daily]}), ms(AT) + 5000 * DAY_MS)

    assert (step.row.period, [one.amount for one in step.grants], len(step.alerts)) == (5000, [10], 1)


def test_the_rest_of_a_limit_is_rounded_down_and_never_less_than_nothing() -> None:
    """Rule 9."""
    period = 0, 3
    assert owed(100, period, 1, []) == 66
    assert owed(100, period, 1, [Given("g", 100, 0, 3)]) == 0
    assert owed(100, period, 1, [Given("g", 10, 0, 3)]) == 60
    assert owed(100, period, 0, [Given("g", 500, 0, 3)]) == 0


def test_what_a_change_does_not_add_is_no_grant() -> None:
    """Rule 9: of nothing there is no grant, in any way to a smaller plan."""
    row = planner.begun("u", "default", LARGE, Asked(), ms(AT), None).row

    step = planner.changed_by_difference(row, SMALL, KNOWN, ms(AT) + DAY_MS)

    assert (step.row.plan_id, list(step.grants), step.row.given) == ("small", [], row.given)


def test_a_subscription_that_begins_anew_says_since_when() -> None:
    """Rule 5: a new anchor, a new id, and the times of the change."""
    row, at_ms = small(), ms(AT) + 3 * DAY_MS
    yearly = terms("yearly", Paper(1200, "yearly"))
    for step in (
        planner.changed_afresh(row, LARGE, at_ms),
        planner.changed_by_difference(row, yearly, KNOWN, at_ms),
    ):
        fresh = step.row
        assert (fresh.anchor_at_ms, fresh.created_at_ms, fresh.updated_at_ms, fresh.period) == (at_ms, at_ms, at_ms, 0)
        assert fresh.subscription_id != row.subscription_id and fresh.version == row.version + 1


def test_p6_an_end_that_is_taken_back_leaves_what_is_unspent() -> None:
    """And who only asks for the end has said nothing of it."""
    to_end = planner.ended(small(), "period_end", "void", ms(AT)).row
    assert (to_end.auto_renew, to_end.unspent) == (False, "void")

    assert planner.adjusted(to_end, Asked(auto_renew=False), ms(AT) + 1).row is to_end
    back = planner.adjusted(to_end, Asked(auto_renew=True), ms(AT) + 1).row
    assert (back.auto_renew, back.unspent, back.version) == (True, "stay", to_end.version + 1)
    renewing = small(unspent="void")
    assert planner.adjusted(renewing, Asked(auto_renew=False), ms(AT) + 1).row.unspent == "void"


def test_a_period_is_due_from_its_first_millisecond_on() -> None:
    row = small()
    assert not planner.is_due(row, row.next_period_at_ms - 1)
    assert planner.is_due(row, row.next_period_at_ms)
    (step,) = steps_until(row, row.next_period_at_ms)
    assert (step.period_started_at_ms, step.next_period_at_ms) == MONTH


def test_what_was_given_until_a_period_begins_is_not_kept_for_it() -> None:
    """Rule 9; by a millisecond more it is."""
    start = MONTH[0]
    for until_ms, kept in ((start, 1), (start + 1, 2)):
        row = small(given=[["earlier", 100, ms(AT), until_ms]])
        (found,) = steps_until(row, start)
        assert isinstance(found.given, list) and len(found.given) == kept


@pytest.mark.parametrize("valid_days", [None, 3])
def test_a_day_that_a_zone_left_out_gives_nothing_and_keeps_what_was_given(valid_days: int | None) -> None:
    """Apia went from 29 to 31 December 2011: that day's period has no length."""
    daily = terms("daily", Paper(10, "daily", valid_days=valid_days))
    begins = ms(datetime(2011, 12, 29, 10, 30))
    row = planner.begun("u", "default", daily, Asked(time_zone="Pacific/Apia"), begins, None).row
    at_ms = begins
    amounts: list[int] = []
    while at_ms < begins + 4 * DAY_MS:
        at_ms = row.next_period_at_ms
        step = planner.advanced(row, Terms({"daily": [daily]}), at_ms)
        row = step.row
        amounts += [one.amount for one in step.grants]
        assert row.next_period_at_ms >= at_ms
    starts = ["2011-12-30", "2011-12-31", "2012-01-01", "2012-01-02"]
    assert amounts == [10] * len(starts)


def steps_until(row: SubscriptionRow, now_ms: int) -> list[SubscriptionRow]:
    """The rows that follow one by that time."""
    found = []
    while planner.is_due(row, now_ms):
        step = planner.advanced(row, KNOWN, now_ms)
        row = step.row
        found.append(row)
    return found


def test_p1_a_difference_counts_from_now_on_and_not_from_the_start_of_the_period() -> None:
    row, larger = small(), terms("larger", Paper(500, "monthly"))
    start, end = row.period_started_at_ms, row.next_period_at_ms
    given = [Given(row.subscription_id + ".0", 100, start, end)]
    for at_ms in (start, start + 1, end - DAY_MS, end - 1):
        step = planner.changed_by_difference(row, larger, KNOWN, at_ms)
        assert sum(one.amount for one in step.grants) == owed(500, (start, end), at_ms, given)
        assert [one.effective_at_ms for one in step.grants] == [at_ms] * len(step.grants)


def test_p1_a_clock_that_was_set_back_gives_a_difference_no_more_than_the_period() -> None:
    """Redis' clock may step back, to before the period began: its whole is the most that there is."""
    [grant] = planner.changed_by_difference(small(), LARGE, KNOWN, ms(AT) - DAY_MS).grants
    assert (grant.amount, grant.effective_at_ms) == (400, ms(AT))


def test_p6_a_change_now_takes_the_coming_one_back_and_a_change_of_terms_counts_from_the_moment_after() -> None:
    """Rules 14 and 4."""
    step = planner.changed_by_difference(small(next_plan_id="small"), LARGE, KNOWN, ms(AT))
    assert (step.row.plan_id, step.row.next_plan_id) == ("large", None)
    later = SMALL.model_copy(update={"version": 2, "from_ms": MONTH[0]})
    changed = Terms({"small": [SMALL, later]})
    assert [changed.at("small", MONTH[0] + n).version for n in (0, 1)] == [1, 2]
