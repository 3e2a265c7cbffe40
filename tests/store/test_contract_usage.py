"""Usage figures, alike on every store: a flush adds to them once, a gap is filled once, and sums are paged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from meter.clock import DAY_MS, HOUR_MS
from meter.store.base import Store
from meter.store.plan_rows import PastPlanRow
from meter.store.usage import Added, Key, Offset, UsageSum, UsageWanted
from meter.store.usage_rows import UsageGapRow, UsageQuantityRow, UsageRow
from tests.store import samples
from tests.store.conftest import Place
from tests.store.test_contract_catalog import subscription

DAY = 19_675
T0 = DAY * DAY_MS
BIG = 2**53 - 1


def figure(path: str, bucket_ms: int = T0, requests: int = 1, charged: int = 5, **members: object) -> UsageRow:
    return UsageRow(path=path, bucket_ms=bucket_ms, requests=requests, charged=charged, **members)


def quantity(path: str, dimension: str, many: int, bucket_ms: int = T0, model: str = "") -> UsageQuantityRow:
    return UsageQuantityRow(path=path, bucket_ms=bucket_ms, model=model, dimension=dimension, quantity=many)


async def paged(store: Store, wanted: UsageWanted) -> list[UsageSum]:
    """All sums, a page of one at a time."""
    found: list[UsageSum] = []
    after: Key = ()
    while page := await store.usage_sums(wanted, after, 1):
        found += page
        after = page[-1].key
        if not after:
            break
    assert found == await store.usage_sums(wanted, (), 1_000)
    return found


async def totals(store: Store) -> list[tuple[Key, int, int, int]]:
    return [tuple(one[:4]) for one in await store.usage_sums(UsageWanted(("user",)), (), 1_000)]  # type: ignore[misc]


async def flushed(store: Store, *rows: UsageRow, quantities: tuple[UsageQuantityRow, ...] = ()) -> None:
    expected = await store.watermark(0)
    given = samples.flush(expected, usage=Added(rows, quantities))
    assert (await store.apply(given)).done


async def test_a_flush_adds_to_what_is_there(store: Store) -> None:
    await flushed(store, figure("a"), figure("b", refunded=3))
    await flushed(store, figure("a", requests=2, charged=7), figure("a", T0 + HOUR_MS))

    assert await totals(store) == [(("a",), 4, 17, 0), (("b",), 1, 5, 3)]
    by_hour = await paged(store, UsageWanted(("hour",), path="a"))
    assert by_hour == [UsageSum((T0,), 3, 12, 0, {}), UsageSum((T0 + HOUR_MS,), 1, 5, 0, {})]


async def test_a_lost_race_counts_nothing(place: Place) -> None:
    first, second = place.store(), place.store()
    for store in (first, second):
        await store.open({})
    expected = await first.watermark(0)
    assert (await first.apply(samples.flush(expected, usage=Added([figure("a")])))).done

    lost = await second.apply(samples.flush(expected, usage=Added([figure("a")])))

    assert not lost.done
    assert await totals(first) == [(("a",), 1, 5, 0)]
    for store in (first, second):
        await store.close()


async def test_sums_beyond_what_a_double_holds_are_exact(store: Store) -> None:
    await flushed(
        store, figure("a", charged=BIG), figure("b", charged=BIG), quantities=(quantity("a", "input", 10**12),)
    )
    await flushed(store, figure("a", charged=BIG), quantities=(quantity("a", "input", 2**53),))

    assert await store.usage_sums(UsageWanted(()), (), 9) == [UsageSum((), 3, 3 * BIG, 0, {"input": 10**12 + 2**53})]


@pytest.mark.parametrize("path", ["acme", "a%e", "a_e"])
async def test_a_path_is_itself_and_what_is_below_it(store: Store, path: str) -> None:
    others = ("acme2", "acme-x", "acme.x", "acme:x", "ACME", "ACME/a", "acm", "acme2/a", "axe", "axe/b")
    rows = [figure(one) for one in (path, f"{path}/a", f"{path}/a/b", f"{path}//", *others)]
    await flushed(store, *rows)

    found = await paged(store, UsageWanted(("user",), path=path))

    assert [one.key for one in found] == [(path,), (f"{path}//",), (f"{path}/a",), (f"{path}/a/b",)]
    alone = await paged(store, UsageWanted(("user",), path=path, only=True))
    assert [one.key for one in alone] == [(path,)]


async def test_levels_of_paths(store: Store) -> None:
    await flushed(
        store, *(figure(path) for path in ("acme", "acme/a", "acme/a/x", "acme/b", "acme-x", "o/1/2/3/4/5/6/7"))
    )

    first = await paged(store, UsageWanted(("level_1",)))
    second = await paged(store, UsageWanted(("level_2",), path="acme"))
    sixth = await paged(store, UsageWanted(("level_6",), path="o"))

    assert [(one.key, one.requests) for one in first] == [(("acme",), 4), (("acme-x",), 1), (("o",), 1)]
    assert [(one.key, one.requests) for one in second] == [(("acme",), 1), (("acme/a",), 2), (("acme/b",), 1)]
    assert [one.key for one in sixth] == [("o/1/2/3/4/5",)]


async def test_several_words_together_and_quantities_by_dimension(store: Store) -> None:
    rows = [
        figure("a", model="m|1"),
        figure("a", model="m"),
        figure("b", T0 + DAY_MS, model="m|1", feature="f", key_id="k"),
    ]
    parts = (
        quantity("a", "input", 10, model="m|1"),
        quantity("a", "own_one", 3, model="m|1"),
        quantity("a", "input", 1, model="m"),
    )
    await flushed(store, *rows, quantities=parts)

    found = await paged(store, UsageWanted(("model", "day")))

    assert found == [
        UsageSum(("m", DAY), 1, 5, 0, {"input": 1}),
        UsageSum(("m|1", DAY), 1, 5, 0, {"input": 10, "own_one": 3}),
        UsageSum(("m|1", DAY + 1), 1, 5, 0, {}),
    ]
    assert [one.key for one in await paged(store, UsageWanted(("feature", "key")))] == [("", ""), ("f", "k")]
    within = UsageWanted(("model",), from_ms=T0 + HOUR_MS, to_ms=T0 + 2 * DAY_MS)
    assert [one.key for one in await paged(store, within)] == [("m|1",)]


async def test_days_and_hours_of_a_zone_that_changes(store: Store) -> None:
    """Until noon two hours ahead of UTC, then one: the day has 25 hours, and each hour is told apart."""
    offsets = (Offset(T0 + 12 * HOUR_MS, 2 * HOUR_MS), Offset(2**53, HOUR_MS))
    await flushed(store, *(figure("a", T0 + at * HOUR_MS) for at in (-3, -2, 0, 11, 12, 22, 23)))

    days = await paged(store, UsageWanted(("day",), offsets=offsets))
    hours = await paged(store, UsageWanted(("hour",), offsets=offsets))

    assert [(one.key, one.requests) for one in days] == [((DAY - 1,), 1), ((DAY,), 5), ((DAY + 1,), 1)]
    assert [one.key for one in hours] == [(T0 + at * HOUR_MS,) for at in (-3, -2, 0, 11, 12, 22, 23)]


async def test_which_values_a_day_has(store: Store) -> None:
    await flushed(
        store,
        figure("a", model="x"),
        figure("a", T0 + 1, model="x"),
        figure("a", T0 + DAY_MS, model="y"),
        figure("b", feature="f"),
    )

    found = await store.usage_values(["a", "b"], T0, T0 + DAY_MS)

    assert sorted(found) == [("a", "x", ""), ("b", "", "f")]
    assert await store.usage_values([], T0, T0 + DAY_MS) == []


async def test_a_gap_is_filled_once(store: Store) -> None:
    gap = UsageGapRow(partition=0, until_seq=10, after_seq=0, from_ms=0)
    await store.apply(samples.flush(None, gaps=[gap]))
    added = Added([figure("a")], [quantity("a", "input", 4)])

    assert await store.fill_usage_gap(gap, 6, added)
    assert not await store.fill_usage_gap(gap, 6, added), "another process was first"

    (left,) = await store.find(UsageGapRow, {}, order_by="until_seq", limit=9)
    assert (left.after_seq, left.version) == (6, 2)
    assert await store.fill_usage_gap(left, 10, added)
    assert await store.find(UsageGapRow, {}, order_by="until_seq", limit=9) == []
    assert not await store.fill_usage_gap(left, 10, added)
    assert await store.usage_sums(UsageWanted(()), (), 9) == [UsageSum((), 2, 10, 0, {"input": 8})]


async def test_a_path_that_is_renamed_takes_its_figures_along_and_outdates_gaps(store: Store) -> None:
    gap = UsageGapRow(partition=0, until_seq=1, after_seq=0, from_ms=0)
    quantities = [quantity("ada", "input", 4), quantity("ada/b", "input", 1)]
    added = Added([figure("ada"), figure("ada", T0 + HOUR_MS), figure("ada/b")], quantities)
    await store.apply(samples.flush(None, usage=added, gaps=[gap]))

    given = samples.flush(
        await store.watermark(0), renamed=[("ada", "anonymous")], usage=Added([figure("ada"), figure("anonymous")])
    )
    await store.apply(given)

    assert await totals(store) == [(("ada",), 1, 5, 0), (("ada/b",), 1, 5, 0), (("anonymous",), 3, 15, 0)]
    assert (await store.usage_sums(UsageWanted((), path="anonymous"), (), 9))[0].quantities == {"input": 4}
    assert not await store.fill_usage_gap(gap, 1, Added([figure("ada")]))


async def test_a_rollup_begins_with_all_that_the_ledger_has(store: Store) -> None:
    await flushed(store, figure("a"), figure("a", T0 + DAY_MS), quantities=(quantity("a", "input", 4, T0 + DAY_MS),))
    await store.apply(replace(samples.flush(None), partition=1, reached=samples.watermark(7, partition=1)))

    many = await store.begin_rollup(T0 + DAY_MS, 60, 9)

    gaps = await store.find(UsageGapRow, {}, order_by="partition", limit=9)
    assert [(gap.partition, gap.after_seq, gap.until_seq, gap.from_ms) for gap in gaps] == [
        (0, 0, 1, T0 + DAY_MS),
        (1, 0, 7, T0 + DAY_MS),
    ]
    assert many == 8
    assert await store.usage_sums(UsageWanted(("day",)), (), 9) == [UsageSum((DAY,), 1, 5, 0, {})]
    mark = (await store.watermarks())[1]
    assert mark == await store.watermark(1)
    assert (mark.counted_seq, mark.bucket_minutes) == (7, 60)

    await store.begin_rollup(T0 + 2 * DAY_MS, 60, 9)
    assert {gap.from_ms for gap in await store.find(UsageGapRow, {}, order_by="partition", limit=9)} == {T0 + DAY_MS}
    await store.begin_rollup(T0 + 2 * DAY_MS, 15, 9)
    assert {gap.from_ms for gap in await store.find(UsageGapRow, {}, order_by="partition", limit=9)} == {0}


async def test_a_flush_of_other_buckets_is_fenced(store: Store) -> None:
    await flushed(store, figure("a"))
    expected = await store.watermark(0)
    await store.begin_rollup(0, 15, 9)

    assert not (await store.apply(samples.flush(expected, usage=Added([figure("a")])))).done
    assert (await store.apply(samples.flush(await store.watermark(0), usage=Added([figure("a")])))).done
    assert await totals(store) == [(("a",), 1, 5, 0)]


async def test_the_ledger_by_seq_and_some_transactions(store: Store) -> None:
    rows = [samples.transaction(seq) for seq in range(1, 6)]
    await store.apply(samples.flush(None, rows))

    assert [row.seq for row in await store.ledger(0, 1, 4, 2)] == [2, 3]
    assert [row.seq for row in await store.ledger(0, 3, 4, 9)] == [4]
    assert await store.ledger(1, 0, 9, 9) == []
    ids = [rows[1].transaction_id, "0-99-lane-1"]
    assert await store.transactions(ids) == {ids[0]: rows[1]}


async def test_a_bucket_is_of_the_plans_that_its_user_had_when_it_ended(store: Store) -> None:
    lasting = subscription("b").model_copy(update={"plan_id": "pro", "plan_since_ms": T0 + HOUR_MS // 2})
    ended = subscription("a").model_copy(update={"plan_id": "old", "state": "ended"})
    await store.insert_many([lasting, ended])
    past = PastPlanRow(
        user_id="b", plan_group="default", from_ms=T0 - HOUR_MS, until_ms=T0 + HOUR_MS // 2, plan_id="free"
    )
    other = PastPlanRow(user_id="a", plan_group="x", from_ms=T0 - DAY_MS, until_ms=T0 + HOUR_MS, plan_id="old")
    await store.insert_many([past, other])
    rows = [figure("a"), figure("a", T0 + HOUR_MS), figure("b", T0 - HOUR_MS), figure("b"), figure("b", T0 + HOUR_MS)]
    await flushed(store, *rows, quantities=(quantity("b", "input", 4),))

    found = await paged(store, UsageWanted(("plan",)))

    assert [(one.key, one.requests, one.quantities) for one in found] == [
        (("",), 1, {}),
        (("free",), 1, {}),
        (("old",), 1, {}),
        (("pro",), 2, {"input": 4}),
    ]
