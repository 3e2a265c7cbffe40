"""Usage figures are what the rows of the ledger add up to: after any step, any race, a rebuild, and counted again."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from meter.clock import HOUR_MS
from meter.engine import operations, upkeep
from meter.engine.operations import Asked, Operation
from meter.engine.priced import commit_usage, deduct_usage, reserve_usage
from meter.engine.prices import RateLine, rate_fields
from meter.ledger import figures as rules
from meter.ledger.anonymise import Anonymiser
from meter.ledger.rebuild import Rebuild
from meter.ledger.rollup import begin_rollup, gaps_of, is_counting, roll_up_page
from meter.store.usage import UsageWanted
from tests.ledger.figures_added_up import figures, of_the_ledger
from tests.ledger.ground import Ground
from tests.ledger.naming import rows_naming, working
from tests.ledger.test_two_flushers import Stops, pausing
from tests.partition import DAY, HOUR, T0

ADA = "ada.lovelace:1815"
SAID = f'"metadata":{{"feature":"for {ADA}"}}'
CHAT = '"metadata":{"feature":"chat"}'


@pytest.fixture
async def priced(ground: Ground) -> AsyncIterator[Ground]:
    """With a card, and credits."""
    line = RateLine({"input": 1_000_000, "output": 2_000_000}, max_output=10)
    ground.run(upkeep.rates([*rate_fields("default", 1, {"gpt": line, "a|b": line})]))
    ground.run(upkeep.activate("default", 1, "1 0"))
    for user in ("acme", "acme/a", "acme2", "ada", ADA):
        ground.run(operations.grant(user, "g", 10**9))
    yield ground
    await ground.drain()
    assert await figures(ground.store) == await of_the_ledger(ground.store)


def refund(ground: Ground, user: str, transaction_id: str, amount: int) -> Operation:
    return operations.refund(user, transaction_id, amount, charged=10**6, refunded=0, draws=(("g", 10**6),))


def story(ground: Ground) -> None:
    """One of everything that is charged or given back."""
    plain = ground.run(operations.deduct("acme", 7))
    ground.run(operations.deduct("acme2", 1, asked=Asked("k", CHAT)))
    usage = ground.run(deduct_usage("acme/a", "gpt input=3 output=1"))
    ground.run(deduct_usage("acme/a", "a|b input=3", asked=Asked("k2", CHAT)))
    ground.run(reserve_usage("acme", "r1", "gpt input=5", 1000, chosen=True, asked=Asked("", CHAT)))
    ground.run(commit_usage("r1", "a|b input=4 output=2"))
    ground.run(reserve_usage("acme", "r2", "gpt input=5", 1000, chosen=True))
    ground.run(operations.commit("r2", 4))
    ground.run(reserve_usage("acme", "r3", "gpt input=5", 1000, chosen=True, at_end="charge"))
    ground.run(reserve_usage("acme", "r4", "gpt input=5", 1000, chosen=True))
    ground.run(operations.reserve("acme", "r5", 9, HOUR, chosen=True))
    ground.run(operations.commit("r5", 0))
    ground.run(operations.reserve("acme", "r6", 9, HOUR, chosen=True))
    ground.run(operations.release("r6"))
    ground.partition.freeze(T0 + HOUR // 2)
    late = ground.run(commit_usage("r4", "gpt input=1"))
    ground.partition.freeze(T0 + 2 * HOUR)
    ground.run(refund(ground, "acme", plain["transaction_id"], 3))
    ground.run(refund(ground, "acme/a", usage["transaction_id"], 2))
    ground.run(refund(ground, "acme", late["transaction_id"], 1))


async def test_figures_are_what_the_rows_add_up_to(priced: Ground) -> None:
    story(priced)
    await priced.drain()

    found = await figures(priced.store)

    assert found == await of_the_ledger(priced.store)
    bucket = T0 // HOUR_MS * HOUR_MS
    assert found["acme", bucket, "a|b", "chat", "", "default@1"] == (1, 8, 0, {"input": 4, "output": 2})
    assert found["acme", bucket, "gpt", "", "", ""] == (1, 4, 0, {}), "an amount is of the model that was held"
    later = bucket + 2 * HOUR_MS
    assert found["acme", later, "", "", "", ""] == (0, 0, 3, {}), "a refund counts at its own time"
    ended = (T0 + 1000) // HOUR_MS * HOUR_MS
    assert found["acme", ended, "gpt", "", "", "default@1"] == (2, 26, 0, {"input": 6, "output": 10}), (
        "charged at its end"
    )


@pytest.mark.parametrize("flush_max", [1, 2, 3, 5, 8])
async def test_figures_do_not_depend_on_where_a_flush_ends(priced: Ground, flush_max: int) -> None:
    story(priced)

    await priced.drain(priced.flusher(flush_max=flush_max))


async def test_two_flushers_and_one_that_stops_anywhere_count_once(priced: Ground) -> None:
    for at in range(1, 40, 3):
        stops = Stops(at)
        story_step(priced, at)
        slow, quick = pausing(priced, stops, flush_max=3), priced.flusher(flush_max=2)
        task = asyncio.create_task(slow.step())
        await asyncio.wait({task, asyncio.create_task(stops.reached.wait())}, return_when=asyncio.FIRST_COMPLETED)
        await priced.drain(quick)
        stops.go_on.set()
        await asyncio.wait({task})
        assert await figures(priced.store) == await of_the_ledger(priced.store), at


def story_step(ground: Ground, n: int) -> None:
    charge = ground.run(deduct_usage("acme", "gpt input=3 output=1"))
    ground.run(operations.deduct("acme/a", n))
    ground.run(refund(ground, "acme", charge["transaction_id"], 1))
    ground.run(operations.reserve("acme2", f"s{n}", 9, HOUR, chosen=True, asked=Asked("", CHAT)))
    ground.run(operations.commit(f"s{n}", 5))


async def rolled_up(ground: Ground, from_ms: int = 0, bucket_minutes: int = 60) -> int:
    await begin_rollup(ground.store, from_ms, bucket_minutes)
    done, more = 0, True
    while more:
        page, more = await roll_up_page(ground.store, 60)
        done += page
    return done


async def test_counted_again_they_are_the_same(priced: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meter.ledger.rollup.ROWS_PER_PAGE", 4)
    story(priced)
    await priced.drain()
    before = await figures(priced.store)

    for from_ms in (0, T0, T0 + HOUR, T0 + DAY):
        await rolled_up(priced, from_ms)
        assert await figures(priced.store) == before, from_ms


async def test_a_rollup_that_is_cut_off_goes_on_beside_a_flush(priced: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meter.ledger.rollup.ROWS_PER_PAGE", 3)
    flusher = priced.flusher(flush_max=2)
    story(priced)
    await priced.drain(flusher)
    total = await begin_rollup(priced.store, 0, 60)
    await roll_up_page(priced.store, 60)
    story_step(priced, 1)
    await priced.drain(flusher)
    assert await begin_rollup(priced.store, 0, 60) == total - 3, "the same again goes on with what is left"

    more = True
    while more:
        await roll_up_page(priced.store, 60)
        story_step(priced, random.randrange(10**6))
        await priced.drain(flusher)
        more = bool(await gaps_of(priced.store))

    assert await figures(priced.store) == await of_the_ledger(priced.store)


async def test_what_a_worker_of_before_wrote_is_found_and_counted(priced: Ground) -> None:
    """An upgrade: there are rows without figures, and an old worker may still write some while the new one runs."""
    story(priced)
    flusher = priced.flusher()
    await flusher.step()
    mark = await priced.store.watermark(0)
    assert mark is not None
    await priced.store.begin_rollup(0, 60, 1)
    for gap in await gaps_of(priced.store):
        await priced.store.remove([gap])
    old = mark.model_copy(update={"counted_seq": None, "bucket_minutes": None})
    await priced.store.move_epoch(await priced.store.watermark(0), old)

    story_step(priced, 1)
    await priced.drain()

    gaps = await gaps_of(priced.store)
    assert [(gap.after_seq, gap.until_seq) for gap in gaps] == [(0, mark.seq)]
    more = True
    while more:
        _, more = await roll_up_page(priced.store, 60)


async def test_an_upgrade_is_counted_though_nothing_is_flushed_anymore(priced: Ground) -> None:
    story(priced)
    await priced.drain()
    before = await figures(priced.store)
    mark = await priced.store.watermark(0)
    assert mark is not None
    await priced.store.begin_rollup(0, 60, 1)
    await priced.store.remove(await gaps_of(priced.store))
    old = mark.model_copy(update={"counted_seq": None, "bucket_minutes": None})
    await priced.store.move_epoch(await priced.store.watermark(0), old)
    assert await is_counting(priced.store) and await figures(priced.store) == {}

    more = True
    while more:
        _, more = await roll_up_page(priced.store, 60)

    assert await figures(priced.store) == before and not await is_counting(priced.store)


async def test_other_buckets_count_everything_again_and_fence_who_counts_by_the_old_ones(priced: Ground) -> None:
    story(priced)
    flusher = priced.flusher()
    await priced.drain(flusher)

    await rolled_up(priced, T0 + DAY, 15)
    story_step(priced, 1)
    await priced.drain(flusher)

    assert await figures(priced.store) != {}
    found = await priced.store.usage_sums(UsageWanted(("user",)), (), 9)
    by_user: dict[str, int] = {}
    for key, sums in (await of_the_ledger(priced.store)).items():
        by_user[key[0]] = by_user.get(key[0], 0) + sums[1]
    assert {str(one.key[0]): one.charged for one in found} == by_user
    mark = await priced.store.watermark(0)
    assert mark is not None
    assert mark.bucket_minutes == 15
    await rolled_up(priced, 0, 60)


async def test_a_rebuild_changes_no_figure(priced: Ground) -> None:
    story(priced)
    await priced.drain()
    before = await figures(priced.store)
    story_step(priced, 1)
    rebuild = Rebuild(priced.engine, priced.gateway, priced.store, DAY)

    assert (await rebuild.partition(0)).reapplied == 5
    assert await figures(priced.store) == await of_the_ledger(priced.store)
    priced.lose_everything()
    await rebuild.partition(0)

    assert await figures(priced.store) == await of_the_ledger(priced.store)
    assert sum(one[1] for one in before.values()) < sum(one[1] for one in (await figures(priced.store)).values())


async def test_values_beyond_so_many_are_other_and_counted_again_so_too(
    priced: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "VALUES_MAX", 3)
    for n in (1, 2, 3, 4, 5, 1, 4):
        charge = priced.run(operations.deduct("ada", 1, asked=Asked("", f'"metadata":{{"feature":"f{n}"}}')))
        await priced.drain(priced.flusher())
    priced.run(refund(priced, "ada", charge["transaction_id"], 1))
    await priced.drain()

    async def by_feature() -> dict[object, tuple[int, int]]:
        found = await priced.store.usage_sums(UsageWanted(("feature",), path="ada"), (), 99)
        return {one.key[0]: (one.requests, one.refunded) for one in found}

    expected = {"f1": (2, 0), "f2": (1, 0), "f3": (1, 0), "other": (3, 1)}
    assert await by_feature() == expected
    await rolled_up(priced)
    assert await by_feature() == expected
    monkeypatch.setattr(rules, "VALUES_MAX", 1_000)
    await rolled_up(priced)


@pytest.mark.parametrize("pages", [0, 1, 2])
async def test_figures_of_a_user_who_is_anonymised_are_the_pseudonyms(
    priced: Ground, monkeypatch: pytest.MonkeyPatch, pages: int
) -> None:
    """Whoever has the name from then on, in the same hour, begins with nothing; a rollup counts nobody twice."""
    monkeypatch.setattr("meter.ledger.rollup.ROWS_PER_PAGE", 3)
    for n in range(4):
        priced.run(operations.deduct(ADA, 5, asked=Asked(f"n{n}", SAID)))
    priced.run(operations.void(ADA, "g"))
    flusher = priced.flusher()
    await priced.drain(flusher)
    before = sorted(sums for sums in (await figures(priced.store)).values())
    await begin_rollup(priced.store, 0, 60)
    for _ in range(pages):
        await roll_up_page(priced.store, 60)

    async with working(flusher):
        done = await Anonymiser(priced.engine, priced.gateway, priced.store).run(ADA, "")
    assert done.state == "anonymised"
    more = True
    while more:
        _, more = await roll_up_page(priced.store, 60)

    assert sorted(sums for sums in (await figures(priced.store)).values()) == before
    assert await rows_naming(priced.store, ADA) == []
    priced.run(operations.grant(ADA, "new", 100))
    priced.run(operations.deduct(ADA, 1))
    await priced.drain(flusher)
    found = await priced.store.usage_sums(UsageWanted((), path=ADA), (), 9)
    assert (found[0].requests, found[0].charged) == (1, 1)
    again = await figures(priced.store)
    await rolled_up(priced)
    assert await figures(priced.store) == again
