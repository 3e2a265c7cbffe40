"""The supervisor: it goes on for ever, whatever fails, and lets a lost partition be mended once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

import pytest

from meter.engine import operations
from meter.errors import RedisUnavailable, StoreUnavailable
from meter.ledger import supervisor as module
from meter.ledger.flusher import Flusher
from meter.ledger.history_guard import HistoryLost
from meter.ledger.supervisor import Supervisor
from tests.ledger.ground import Ground, until
from tests.ledger.story import tell
from tests.ledger.test_flusher import Failing
from tests.partition import T0


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were taken; none of them takes time."""
    pauses: list[float] = []
    real = asyncio.sleep

    class Quick:
        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

        @staticmethod
        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            await real(0)

    monkeypatch.setattr(module, "asyncio", Quick())
    return pauses


class Scripted:
    """A flusher whose steps end as they are told."""

    def __init__(self, *ends: int | Exception) -> None:
        self.ends = list(ends)
        self.steps = 0

    async def step(self) -> int:
        self.steps += 1
        end = self.ends.pop(0) if self.ends else 0
        if isinstance(end, Exception):
            raise end
        return end

    async def wait(self) -> bool:
        """There is always something."""
        await asyncio.sleep(0)
        return False


def supervising(ground: Ground, *flushers: object, repair: Callable[[int], Any] | None = None) -> Supervisor:
    return Supervisor(cast("list[Flusher]", list(flushers)), ground.settings, repair)


async def test_a_step_that_fails_is_taken_again_with_growing_pauses(
    ground: Ground, slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[int | Exception] = [StoreUnavailable("away"), RedisUnavailable("redis", "away"), ValueError("a bug")]
    scripted = Scripted(*errors * 3, 3, StoreUnavailable("again"))
    owner = supervising(ground, scripted)
    with caplog.at_level(logging.WARNING):
        owner.start()
        await until(lambda: scripted.steps > 12, "it goes on")
        await owner.close()
    assert slept[:9] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert slept[9:11] == [0.4, 0.1]
    assert 'the flush fails and is tried again partition=0 why="StoreUnavailable: away"' in caplog.text
    assert "Traceback" in caplog.text and "a bug" in caplog.text


async def test_a_full_step_is_followed_at_once(ground: Ground, slept: list[float]) -> None:
    full = ground.settings.flush_max
    scripted = Scripted(full, full, full, 1)
    owner = supervising(ground, scripted)
    owner.start()
    await until(lambda: scripted.steps > 4, "it goes on")
    await owner.close()
    assert set(slept) == {0.4} and len(slept) < scripted.steps - 2


async def test_what_comes_alone_is_flushed_at_once_and_what_follows_gathers(ground: Ground, slept: list[float]) -> None:
    paused: list[int] = []

    class Watched(Scripted):
        async def step(self) -> int:
            paused.append(len(slept))
            return await super().step()

    owner = supervising(
        ground, Watched(0, 1, 0, 0)
    )  # waits and is woken, flushes, waits, is woken by what is another's
    owner.start()
    await until(lambda: len(paused) > 4, "it goes on")
    await owner.close()
    assert paused[:5] == [0, 0, 1, 1, 2]


async def test_a_wait_in_vain_is_followed_by_one_look_and_the_next_wait(ground: Ground, slept: list[float]) -> None:
    class Quiet(Scripted):
        waits = 0

        async def wait(self) -> bool:
            self.waits += 1
            await asyncio.sleep(0)
            return True

    quiet = Quiet()
    owner = supervising(ground, quiet)
    owner.start()
    await until(lambda: quiet.steps > 5, "it goes on")
    await owner.close()
    assert slept == []
    assert quiet.steps - quiet.waits in (0, 1)


async def test_one_partition_does_not_hold_up_the_others(ground: Ground, slept: list[float]) -> None:
    bad, good = Scripted(*[StoreUnavailable("x")] * 1_000), Scripted()
    owner = supervising(ground, bad, good)
    owner.start()
    await until(lambda: good.steps > 20 and bad.steps > 20, "both go on")
    await owner.close()


@pytest.mark.parametrize("works", [True, False])
async def test_a_lost_partition_is_mended_if_it_may(ground: Ground, slept: list[float], works: bool) -> None:
    mended: list[int] = []

    async def repair(partition: int) -> None:
        mended.append(partition)
        if not works or len(mended) < 2:
            raise RuntimeError("not yet")

    lost = HistoryLost("partition", "lost")
    scripted = Scripted(*[lost] * (2 if works else 5))
    owner = supervising(ground, scripted, repair=repair)
    owner.start()
    await until(lambda: scripted.steps > 6, "it goes on")
    await owner.close()
    assert mended == [0] * (2 if works else 5)


async def test_without_repair_it_waits_for_the_operator(ground: Ground, slept: list[float]) -> None:
    scripted = Scripted(*[HistoryLost("partition", "lost")] * 3)
    owner = supervising(ground, scripted)
    owner.start()
    await until(lambda: scripted.steps > 4, "it goes on")
    await owner.close()
    assert slept[:3] == [module.LOST_PAUSE_SECONDS] * 3


@pytest.mark.parametrize("method", ["watermark", "apply"])
async def test_it_recovers_when_the_store_is_back(ground: Ground, slept: list[float], method: str) -> None:
    tell(ground.partition, T0)
    store: Any = Failing(ground.store, method, times=6)
    owner = supervising(ground, ground.flusher(store))
    owner.start()
    await _until_flushed(ground)
    await owner.close()
    await ground.check()


async def test_it_recovers_when_redis_is_back(ground: Ground, slept: list[float]) -> None:
    tell(ground.partition, T0)

    class Away:
        times = 6

        def __getattr__(self, name: str) -> Any:
            async def called(*args: object) -> object:
                self.times -= 1
                if self.times >= 0:
                    raise RedisUnavailable("redis", "away")
                return await getattr(ground.gateway, name)(*args)

            return called

    gateway: Any = Away()
    owner = supervising(ground, ground.flusher(gateway=gateway))
    owner.start()
    await _until_flushed(ground)
    ground.run(operations.deduct("u", 1))
    await _until_flushed(ground)
    await owner.close()
    await ground.check()


async def _until_flushed(ground: Ground) -> None:
    deadline = asyncio.get_running_loop().time() + 20
    while await ground.behind():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.005)
