"""U9: which plan a user had when: what each change, and the passing of time, leaves behind (docs/plans.md, rule 20)."""

from __future__ import annotations

from datetime import datetime

import pytest

from meter.clock import DAY_MS
from meter.plans import planner
from meter.plans.planner import Asked, Step
from meter.plans.terms import Terms
from meter.store.plan_rows import PastPlanRow, SubscriptionRow
from tests.plans.conftest import START
from tests.plans.model import Paper
from tests.plans.test_planner import AT, KNOWN, LARGE, MONTH, SMALL, ms, small, terms
from tests.plans.town import Town, days, done

Had = list[tuple[str, int, int]]
BEGAN = ms(AT)
LATER = BEGAN + 3 * DAY_MS


def had(step: Step) -> Had:
    """(plan_id, from, until) of what a step leaves behind."""
    return [(row.plan_id, row.from_ms, row.until_ms) for row in step.past]


@pytest.mark.parametrize(
    "change",
    [
        lambda row, at: planner.changed_afresh(row, LARGE, at),
        lambda row, at: planner.changed_by_difference(row, LARGE, KNOWN, at),
        lambda row, at: planner.changed_by_difference(row, terms("yearly", Paper(9, "yearly")), KNOWN, at),
        lambda row, at: planner.ended(row, "now", "stay", at),
    ],
    ids=["none", "difference", "another unit", "end"],
)
def test_u9_a_change_now_leaves_the_plan_of_before_behind(change: object) -> None:
    assert callable(change)
    step = change(small(), LATER)
    assert had(step) == [("small", BEGAN, LATER)]
    if step.row.state != "ended":
        assert step.row.plan_since_ms == LATER
    assert had(change(small(), BEGAN)) == []  # nobody had it for a moment


def test_u9_what_was_to_come_counts_from_the_end_of_the_period_whenever_the_job_runs() -> None:
    coming = small(next_plan_id="large", auto_renew=False)
    for late in (0, 1, 40 * DAY_MS):
        step = planner.advanced(coming, KNOWN, MONTH[0] + late)
        assert had(step)[0] == ("small", BEGAN, MONTH[0])
    assert had(step) == [("small", BEGAN, MONTH[0]), ("large", MONTH[0], step.row.next_period_at_ms)]
    assert step.row.state == "ended"


def test_u9_a_renewal_or_another_unit_of_the_same_plan_is_no_change_of_plan() -> None:
    old = small(plan_since_ms=None)
    later = planner.advanced(old, KNOWN, MONTH[1])
    assert (had(later), later.row.plan_id) == ([], "small")
    yearly = terms("small", Paper(100, "yearly")).model_copy(update={"version": 2, "from_ms": BEGAN + 1})
    moved = planner.advanced(old, Terms({"small": [SMALL, yearly]}), MONTH[0])
    assert (had(moved), moved.row.plan_since_ms, moved.row.created_at_ms) == ([], BEGAN, MONTH[0])
    assert had(planner.ended(moved.row, "now", "stay", MONTH[1])) == [("small", BEGAN, MONTH[1])]


def test_u9_a_plan_that_is_begun_again_leaves_the_time_without_one_out() -> None:
    over = planner.ended(small(), "now", "stay", LATER).row
    assert had(planner.ended(over, "now", "void", LATER + 9)) == []
    again = planner.begun("u", "default", SMALL, Asked(anchor_ms=BEGAN), LATER + 9, over)
    assert (had(again), again.row.plan_since_ms) == ([], LATER + 9)


async def rows(found: Town) -> tuple[list[PastPlanRow], SubscriptionRow]:
    past = await found.store.find(PastPlanRow, {"user_id": "u"}, order_by="from_ms", limit=99)
    present = await found.store.get(SubscriptionRow, "u", "default")
    assert present is not None
    return past, present


async def test_u9_the_plans_of_a_user_follow_one_another_without_a_gap(both: Town) -> None:
    await both.plan("small")
    await both.plan("large", 500)
    done(await both.meter.subscribe("u", "small"))
    times: list[datetime] = [START]
    for step in range(4):
        times.append(START + days(step + 1))
        await both.set_time(times[-1])
        plan_id = ("large", "small")[step % 2]
        done(await both.meter.upgrade("u", plan_id, proration="difference" if step % 3 else "none"))
    past, present = await rows(both)
    spans = [(row.plan_id, row.from_ms, row.until_ms) for row in past]
    edges = [ms(time.replace(tzinfo=None)) for time in times]
    assert spans == [(("small", "large")[n % 2], edges[n], edges[n + 1]) for n in range(4)]
    assert (present.plan_id, present.plan_since_ms) == ("small", edges[-1])
