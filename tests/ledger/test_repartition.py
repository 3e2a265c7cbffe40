"""Another number of partitions: what it refuses, what it survives, and who is fenced by it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from meter import Refusal
from meter.config import Settings
from meter.engine.engine import Engine
from meter.engine.places import earlier_names, named_partition, place_named
from meter.engine.redis import RedisGateway
from meter.errors import ConfigError, Unavailable
from meter.keys import partition_of
from meter.ledger.flusher import Flusher
from meter.ledger.numbers import Numbers, numbers_of
from meter.ledger.rebuild import Rebuild
from meter.ledger.repartition import RepartitionFailed, RepartitionRefused
from meter.store.connect import open_store
from meter.store.rows import AnonymisationRow
from tests.moved import Deployment, Killed, goes_on, killed_after, lived, shown
from tests.servers import Server

pytestmark = pytest.mark.anyio


@pytest.fixture
async def deployment(server: Server) -> AsyncIterator[Deployment]:
    name = f"memory://{secrets.token_hex(6)}"
    gateway: RedisGateway = server.gateway()
    yield Deployment(server, lambda: open_store(name), gateway)
    await gateway.close()


def same_root(number: int, partitions: int) -> str:
    """A user of a partition."""
    return next(name for n in range(10_000) if partition_of(name := f"u{n}", partitions) == number)


async def test_a_run_that_is_killed_anywhere_is_ended_by_the_next_one(deployment: Deployment) -> None:
    """In front of every n-th call to Redis and the store, a prime apart so that two rounds do not meet."""
    async with deployment.served(3) as meter, deployment.opened() as store:
        story = await lived(meter, store, 3)
    calls, kills = 0, 0
    while True:
        calls += 1 + calls // 6
        try:
            report = await deployment.move(5, wrapped=killed_after(calls))
            break
        except Killed:
            kills += 1
            async with deployment.opened() as store:
                if (await numbers_of(store) or Numbers(0)).then is not None:
                    with pytest.raises(ConfigError, match="`meter repartition 5` has begun and not ended"):
                        async with deployment.served(3):
                            pass
                    with pytest.raises(RepartitionRefused, match="`meter repartition 5` ends it"):
                        await deployment.move(4)
    assert kills > 20
    assert (report.partitions_before, report.partitions, report.drifts) == (3, 5, 0)
    async with deployment.served(5) as meter:
        await goes_on(meter, story)


async def test_every_old_sidecar_and_flusher_is_fenced(deployment: Deployment) -> None:
    """One that was frozen meanwhile, and that nobody saw, decides nothing and writes nothing."""
    async with deployment.served(1) as meter, deployment.opened() as store:
        await lived(meter, store, 1)
        old = meter._runtime.engine
        flusher = Flusher(deployment.gateway, old, store, old.partitions[0], meter._settings)
        await flusher.step()
        shown(await meter.deduct("user-1", 1))
        await deployment.move(4)
        for user in ("user-1", "user-2", "user-9"):
            with pytest.raises(Unavailable, match="METER_PARTITIONS was changed by `meter repartition`"):
                await meter.deduct(user, 1)
        before = {number: await store.watermark(number) for number in range(4)}
        assert await flusher.step() == 0
        assert before == {number: await store.watermark(number) for number in range(4)}
    with pytest.raises(ConfigError, match="partitions is 4 in the store and 1 here: set METER_PARTITIONS=4"):
        async with deployment.served(1):
            pass
    async with deployment.served(4) as meter:
        assert await meter._runtime.engine.faults() == []


async def test_a_redis_that_is_away_from_its_store_says_the_number_too(deployment: Deployment) -> None:
    async with deployment.served(1) as meter:
        shown(await meter.add("u", 1))
    await deployment.move(2)
    with pytest.raises(ConfigError, match=r"made with partitions=2; this process has 1.*`meter repartition`"):
        async with Engine(deployment.gateway, Settings(partitions=1)):
            pass


async def test_it_waits_for_who_is_seen_and_for_an_anonymisation(deployment: Deployment) -> None:
    async with deployment.served(1) as meter:
        shown(await meter.add("u", 1))

    async def somebody() -> list[str]:
        return ["the worker w1"]

    with pytest.raises(RepartitionRefused, match="stop every process of the deployment first; there is the worker w1"):
        await deployment.move(2, somebody)
    looks = iter([[], ["the sidecar s1"], []])

    async def comes_late() -> list[str]:
        return next(looks)

    with pytest.raises(RepartitionRefused, match="the sidecar s1"):
        await deployment.move(2, comes_late)
    async with deployment.opened() as store:
        assert await numbers_of(store) == Numbers(1)
        await store.insert(AnonymisationRow(user_id="u", pseudonym="a", secret="s", created_at_ms=1))
    with pytest.raises(RepartitionRefused, match="is being anonymised"):
        await deployment.move(2)
    async with deployment.served(1) as meter:
        shown(await meter.deduct("u", 1))


async def test_a_key_that_two_partitions_knew_answers_both_users(deployment: Deployment) -> None:
    """And still does after they are apart again; another body is refused throughout."""
    one, other = same_root(0, 2), same_root(1, 2)
    async with deployment.served(2) as meter:
        for user, amount in ((one, 10), (other, 20)):
            shown(await meter.add(user, amount, idempotency_key="same"))
            shown(await meter.deduct(user, amount / 5, idempotency_key="d"))
    for number in (1, 3, 2):
        report = await deployment.move(number)
        async with deployment.served(number) as meter:
            for user, amount in ((one, 10), (other, 20)):
                added = await meter.add(user, amount, idempotency_key="same")
                again = await meter.deduct(user, amount / 5, idempotency_key="d")
                assert not isinstance(added, Refusal) and added.replayed
                assert not isinstance(again, Refusal) and again.replayed and again.taken == int(amount / 5)
                for refused in (
                    await meter.deduct(user, 1, idempotency_key="d"),
                    await meter.add(user, 1, idempotency_key="same"),
                ):
                    assert isinstance(refused, Refusal) and refused.status == 422
                assert shown(await meter.balance(user))["available"] == amount * 0.8
        if number == 1:
            assert report.renamed == 2


async def test_another_run_takes_the_move_over(deployment: Deployment) -> None:
    async with deployment.served(1) as meter:
        shown(await meter.add("u", 1))
    async with deployment.opened() as store:
        looks = 0

        async def meanwhile() -> list[str]:
            nonlocal looks
            looks += 1
            if looks == 2:
                await deployment.move(2)
            return []

        with pytest.raises(RepartitionFailed, match="another `meter repartition` has taken it over"):
            await deployment.move(2, meanwhile)
        assert await numbers_of(store) == Numbers(2)
    async with deployment.served(2) as meter:
        assert shown(await meter.balance("u"))["available"] == 1


async def test_a_rebuild_afterwards_keeps_the_fence(deployment: Deployment) -> None:
    """Also of a Redis that lost everything."""
    async with deployment.served(1) as meter, deployment.opened() as store:
        story = await lived(meter, store, 1)
        await deployment.move(4)
        deployment.server.client.flushall()
        engine = Engine(deployment.gateway, Settings(partitions=4))
        engine.start_closed()
        for number in range(4):
            await Rebuild(engine, deployment.gateway, store, 86_400_000).partition(number)
        await engine.close()
        with pytest.raises(Unavailable):
            await meter.deduct("user-1", 1)
    async with deployment.served(4) as meter:
        await goes_on(meter, story)


@pytest.mark.parametrize(
    ("reservation_id", "partitions", "before", "number"),
    [
        ("r2_" + "x" * 22, 4, (), 2),
        ("r4_" + "x" * 22, 4, (), None),
        ("r0_" + "x" * 22, 4, (1,), None),
        ("r2of4_" + "x" * 22, 4, (1,), 2),
        ("r3of4_" + "x" * 22, 2, (4,), 1),
        ("r3_" + "x" * 22, 2, (4,), 1),
        ("r3of4_" + "x" * 22, 3, (4,), None),
        ("r3of4_" + "x" * 22, 1, (4,), 0),
        ("chosen", 4, (), None),
    ],
)
def test_an_id_names_its_partition_as_far_as_it_can(
    reservation_id: str, partitions: int, before: tuple[int, ...], number: int | None
) -> None:
    assert named_partition(reservation_id, partitions, before) == number


def test_the_request_of_a_gateway_is_found_under_what_it_was_called() -> None:
    digest = "x" * 22
    assert earlier_names(f"r2of4_{digest}", (1,)) == []
    assert earlier_names(f"q2of4_{digest}", (1,)) == [f"q0_{digest}"]
    assert earlier_names(f"q1of4_{digest}", (2, 3)) == [
        *(f"q{number}of3_{digest}" for number in range(3)),
        f"q1_{digest}",
    ]
    assert place_named(2, 4, ()) == "2" and place_named(2, 4, (1,)) == "2of4"
