"""The running code against a second reading of docs/plans.md (tests/plans/model.py): random calls, random schedules."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meter.clock import milliseconds
from meter.engine.engine import Engine
from meter.engine.operations import GRANT, Operation
from meter.plans.allocation import Allocation
from meter.plans.planner import Asked
from meter.plans.subscriptions import Caller, Proration, Subscriptions
from meter.plans.terms import same_terms, terms_of
from meter.store.catalog import Change
from meter.store.memory.store import MemoryStore, _Tables
from meter.store.plan_rows import PlanRow, SubscriptionRow
from meter.store.rows import EventRow
from tests.plans.model import Lot, Paper, Reading

FIRST = datetime(2027, 1, 31)
PAPERS = {
    "small": Paper(100, "monthly"),
    "large": Paper(500, "monthly", roll=(30, 45)),
    "year": Paper(1200, "yearly"),
    "day": Paper(10, "daily", valid_days=7),
}
PLAN_IDS = st.sampled_from(list(PAPERS))
CALLS = st.one_of(
    st.tuples(st.just("assign"), PLAN_IDS, st.sampled_from([None, None, True, False])),
    st.tuples(
        st.just("change"),
        PLAN_IDS,
        st.sampled_from(["now", "now", "period_end"]),
        st.sampled_from(["none", "difference"]),
    ),
    st.tuples(st.just("end"), st.sampled_from(["now", "period_end"]), st.sampled_from(["stay", "void"])),
    st.tuples(
        st.just("put"),
        PLAN_IDS,
        st.builds(
            Paper,
            st.sampled_from([1, 10, 99, 100, 400, 1200]),
            st.sampled_from(["daily", "weekly", "monthly", "yearly"]),
            st.sampled_from([None, None, 3, 60]),
            st.sampled_from([None, None, (50, 10), (100, 400)]),
            st.sampled_from([None, None, 7]),
            st.sampled_from([10, 10, 5, 0]),
        ),
    ),
    st.tuples(st.just("job")),
)
HOURS = st.sampled_from([0, 0, 1, 24, 7 * 24, 15 * 24, 31 * 24, 100 * 24, 366 * 24])
STORY = st.lists(st.tuples(HOURS, CALLS), min_size=1, max_size=12)


OVER_BEFORE_ANY_JOB: list[tuple[int, tuple[Any, ...]]] = [
    (0, ("assign", "small", None)),
    (0, ("end", "period_end", "void")),
    (0, ("change", "large", "period_end", "none")),
    (60 * 24, ("job",)),
]
"""Its grant and its end are one step: the rest that rolled over must not come after its own void."""


class Ledger:
    """Stands for Redis: keeps what it is told, by id, and knows the time."""

    def __init__(self) -> None:
        self.now = FIRST
        self.lots: dict[str, Lot] = {}

    async def now_ms(self, _: int = 0) -> int:
        return ms(self.now)

    def partition_of(self, _: str) -> int:
        return 0

    async def run_many(self, _: int, many: Sequence[Operation], mode: str = "each") -> list[str]:
        return ["0 ok" if mode == "trial" else self._run(one) for one in many]

    def _run(self, one: Operation) -> str:
        if one[0] == "grant":
            asked: dict[str, str] = dict(zip(GRANT.arguments, one[4:], strict=True))
            if asked["grant_id"] in self.lots:
                return "1 ok"  # by its key, however late
            begins, ends = time_of(asked["effective_at_ms"]), time_of(asked["expires_at_ms"])
            assert begins < ends
            assert self.now < ends
            span = timedelta(milliseconds=int(asked["rollover_ms"]))
            rest = int(asked["rollover_max"] or 0)
            self.lots[asked["grant_id"]] = Lot(int(asked["amount"]), begins, ends, rest, span.days)
        elif one[0] == "void":
            name = one[5].removesuffix(".rollover")
            for lot in (self.lots.get(name), self.lots.get(f"{name}.rollover")):
                if lot is not None and lot.gone is None:
                    lot.gone = self.now
        return "0 ok"


def ms(time: datetime) -> int:
    return milliseconds(time.replace(tzinfo=UTC))


def time_of(text: str) -> datetime:
    return datetime(1970, 1, 1) + timedelta(milliseconds=int(text))


def plan_row(plan_id: str, paper: Paper, at: datetime, version: int) -> PlanRow:
    percent, days = paper.roll or (None, None)
    return PlanRow(
        plan_id=plan_id,
        name=plan_id,
        credit_limit=paper.limit,
        price="1",
        billing_period=paper.unit,
        validity_days=paper.valid_days,
        rollover_max=paper.cap,
        rollover_percent=percent if paper.cap is None else None,
        rollover_days=days,
        priority=paper.priority,
        created_at_ms=ms(FIRST),
        updated_at_ms=ms(at),
        version=version,
    )


class Running:
    """The code itself: planner, steps and allocation over a store in memory."""

    def __init__(self) -> None:
        self.ledger, self.store = Ledger(), MemoryStore(_Tables())
        engine = cast("Engine", self.ledger)
        self.subscriptions, self.allocation = Subscriptions(engine, self.store, 1), Allocation(engine, self.store, 1)

    async def call(self, *call: Any) -> bool | None:
        alone = Caller(lambda _row: ())
        match call:
            case ("assign", plan, renews):
                found: object = await self.subscriptions.assign("u", plan, Asked(auto_renew=renews), alone)
            case ("change", plan, when, how):
                found = await self.subscriptions.change("u", plan, Proration(when, how), alone)
            case ("end", when, unspent):
                found = await self.subscriptions.end("u", "default", when, unspent, alone)
            case ("put", plan, paper):
                await self.put(plan, paper)
                return None
            case _:
                await self.allocate()
                return None
        return isinstance(found, SubscriptionRow)

    async def allocate(self) -> None:
        while (await self.allocation.page(1000)).more:
            pass

    async def put(self, plan_id: str, paper: Paper) -> None:
        before = await self.store.get(PlanRow, plan_id)
        assert before is not None
        row = plan_row(plan_id, paper, self.ledger.now, before.version + 1)
        history = [] if same_terms(row, before) else [terms_of(before), terms_of(row)]
        assert await self.store.commit(Change([row], missing=history))


async def tell(story: Sequence[tuple[int, tuple[Any, ...]]]) -> None:
    running, reading = Running(), Reading({name: [(None, paper)] for name, paper in PAPERS.items()})
    for name, paper in PAPERS.items():
        await running.store.insert(plan_row(name, paper, FIRST, 1))
    now = FIRST
    for hours, call in story:
        now += timedelta(hours=hours)
        running.ledger.now = now
        done = await running.call(*call)
        if call[0] == "put":
            reading.put(call[1], call[2], now)
        elif call[0] != "job":
            assert done == getattr(reading, call[0])(*call[1:], now), (now, call)
    await running.allocate()
    reading.pass_time(now)
    assert await running.store.find(EventRow, {}, order_by="event_id", limit=1) == [], "a grant was refused"
    row = await running.store.get(SubscriptionRow, "u", "default")
    if row is None:
        assert reading.plan is None
        return
    found = SimpleNamespace(**row.model_dump())
    assert (found.state == "active", found.plan_id) == (reading.running, reading.plan)
    assert sum(lot.worth(now) for lot in running.ledger.lots.values()) == reading.worth(now)
    if reading.running:
        assert (found.auto_renew, found.next_plan_id) == (reading.renews, reading.coming)
        assert (found.period, found.billing_period) == (reading.number, reading.unit)
        times = (found.anchor_at_ms, found.period_started_at_ms, found.next_period_at_ms)
        assert times == (ms(reading.anchor), ms(reading.starts), ms(reading.ends))


@settings(max_examples=200, deadline=None)
@given(story=STORY)
@example(story=OVER_BEFORE_ANY_JOB)
def test_whatever_is_called_whenever_jobs_run_the_rules_hold(story: list[tuple[int, tuple[Any, ...]]]) -> None:
    asyncio.run(tell(story))


@pytest.mark.long
@settings(max_examples=10_000, deadline=None)
@given(story=STORY)
def test_ten_thousand_stories(story: list[tuple[int, tuple[Any, ...]]]) -> None:
    asyncio.run(tell(story))
