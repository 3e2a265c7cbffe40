"""Grouped commit: what travels together, in which order, and who is told what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

import pytest

from meter.amount import AmountScale
from meter.config import Settings
from meter.engine.batcher import Batcher, Limits, Lines
from meter.engine.engine import Engine, limits_of
from meter.engine.operations import Operation, balance, deduct, grant
from meter.engine.programs import Program, apply_program
from meter.engine.redis import RedisGateway
from meter.errors import MeterError, NotBegun, Overloaded, RedisUnavailable, ScriptError, Undecided
from meter.keys import PartitionKeys
from tests.partition import Partition
from tests.servers import Server

DEADLINE_SECONDS = 20.0


class Recorder(RedisGateway):
    """A gateway that notes how many operations each call carries, and that can be held up."""

    def __init__(self, inner: RedisGateway) -> None:
        super().__init__(inner._client)
        self._inner = inner
        self.sizes: list[int] = []
        self.in_flight = self.in_flight_max = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, program: Program, keys: Sequence[str], arguments: Sequence[str | int]) -> str:
        self.sizes.append(int(arguments[9]))
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            await self.gate.wait()
            return await self._inner.run(program, keys, arguments)
        finally:
            self.in_flight -= 1


class Setup:
    """A started batcher on an opened partition where u has a million credits."""

    def __init__(self, recorder: Recorder, batcher: Batcher) -> None:
        self.recorder, self.batcher = recorder, batcher

    def ask(self, *many: Operation, atomic: bool = False) -> asyncio.Future[Lines]:
        future: asyncio.Future[Lines] = asyncio.get_running_loop().create_future()

        def done(outcome: Lines | MeterError) -> None:
            if isinstance(outcome, MeterError):
                future.set_exception(outcome)
            elif not future.cancelled():
                future.set_result(outcome)

        self.batcher.submit(many, done, "atomic" if atomic else "each")
        return future

    async def available(self) -> int:
        return int((await self.ask(balance("u")))[0].split(" ")[-3])


Start = Callable[..., Setup]


@pytest.fixture
async def start(partition: Partition, gateway: RedisGateway) -> AsyncIterator[Start]:
    """Starts batchers with the limits that a test names; they are closed after it."""
    partition.run(grant("u", "g", 1_000_000))
    batchers: list[Batcher] = []

    def start(**limits: float) -> Setup:
        names = {name: getattr(limits_of(Settings(redis_timeout_ms=10_000)), name) for name in Limits.__slots__}
        recorder = Recorder(gateway)
        batcher = Batcher(recorder, apply_program(), PartitionKeys(0), Limits(**{**names, **limits}))
        batcher.barred = None
        batcher.start()
        batchers.append(batcher)
        return Setup(recorder, batcher)

    yield start
    async with asyncio.timeout(DEADLINE_SECONDS):  # a sender that died would keep it open for ever
        for batcher in batchers:
            await batcher.close()


async def test_one_turn_is_one_call(start: Start) -> None:
    setup = start()

    lines = await asyncio.gather(*(setup.ask(deduct("u", n)) for n in range(1, 51)))

    assert setup.recorder.sizes == [50]
    assert [line[0].split(" ")[4] for line in lines] == [str(n) for n in range(1, 51)]


async def test_calls_apply_in_the_order_of_submission(start: Start) -> None:
    setup = start(senders=1, batch_max=7)

    lines = await asyncio.gather(*(setup.ask(deduct("u", 1)) for _ in range(40)))

    left = [int(line[0].split(" ")[-3]) for line in lines]
    assert left == list(range(999_999, 999_959, -1))
    assert setup.recorder.sizes == [7] * 5 + [5]


async def test_operations_of_one_call_stay_together(start: Start) -> None:
    setup = start(senders=1, batch_max=5)

    many = [setup.ask(*[deduct("u", 1)] * size) for size in (3, 2, 1, 9, 2)]

    assert [len(lines) for lines in await asyncio.gather(*many)] == [3, 2, 1, 9, 2]
    assert setup.recorder.sizes == [5, 1, 9, 2]


async def test_what_comes_while_a_call_is_under_way_travels_together(start: Start) -> None:
    setup = start(senders=1)
    setup.recorder.gate.clear()
    first = setup.ask(deduct("u", 1))
    await asyncio.sleep(0.01)
    later = []
    for _ in range(20):
        later.append(setup.ask(deduct("u", 1)))
        await asyncio.sleep(0)
    assert (setup.recorder.sizes, setup.batcher.waiting) == ([1], 20)

    setup.recorder.gate.set()
    await asyncio.gather(first, *later)

    assert setup.recorder.sizes == [1, 20]
    assert setup.batcher.waiting == 0


async def test_no_more_calls_in_flight_than_senders(start: Start) -> None:
    setup = start(senders=3, batch_max=2)
    setup.recorder.gate.clear()
    asked = [setup.ask(deduct("u", 1)) for _ in range(20)]
    await asyncio.sleep(0.01)
    assert setup.recorder.sizes == [2, 2, 2]

    setup.recorder.gate.set()
    await asyncio.gather(*asked)

    assert setup.recorder.in_flight_max == 3
    assert await setup.available() == 999_980


async def test_an_atomic_call_travels_alone(start: Start) -> None:
    setup = start(senders=1)

    asked = [
        setup.ask(deduct("u", 1)),
        setup.ask(deduct("u", 1)),
        setup.ask(deduct("u", 5), deduct("u", 2_000_000), atomic=True),
        setup.ask(deduct("u", 3), deduct("u", 4), atomic=True),
        setup.ask(deduct("u", 1)),
    ]
    await asyncio.gather(*asked)

    assert setup.recorder.sizes == [2, 2, 2, 1]
    assert await setup.available() == 1_000_000 - 3 - 7


async def test_a_full_queue_refuses_and_then_recovers(start: Start) -> None:
    setup = start(senders=1, queue_max=10)
    setup.recorder.gate.clear()
    asked = [setup.ask(deduct("u", 1))]
    await asyncio.sleep(0.01)
    asked += [setup.ask(deduct("u", 1)) for _ in range(8)]
    with pytest.raises(Overloaded) as refused:
        setup.ask(*[deduct("u", 1)] * 3)
    asked.append(setup.ask(*[deduct("u", 1)] * 2))
    with pytest.raises(Overloaded):
        setup.ask(deduct("u", 1))
    assert (refused.value.reason, setup.batcher.waiting) == ("queue", 10)

    setup.recorder.gate.set()
    await asyncio.gather(*asked)

    assert await setup.available() == 1_000_000 - 11


async def test_a_waiter_that_goes_away_takes_nothing_with_it(start: Start) -> None:
    setup = start(senders=1)
    setup.recorder.gate.clear()
    asked = [setup.ask(deduct("u", 1)) for _ in range(3)]
    await asyncio.sleep(0.01)
    asked[1].cancel()
    asked += [setup.ask(deduct("u", 10)) for _ in range(2)]
    asked[3].cancel()

    setup.recorder.gate.set()

    assert [len(asked[n].result()) for n in (0, 2, 4) if not await _finished(asked[n])] == [1, 1, 1]
    assert await setup.available() == 1_000_000 - 23


async def test_a_waiter_that_fails_does_not_end_the_lane(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    setup = start(senders=1)

    def fail(outcome: Lines | MeterError) -> None:
        raise KeyError("a fault of the caller's")

    setup.batcher.submit((deduct("u", 1),), fail)
    neighbour = setup.ask(deduct("u", 1))

    async with asyncio.timeout(DEADLINE_SECONDS):
        assert (await neighbour)[0].startswith("0 ok")
        assert await setup.available() == 999_998
    assert "a fault of the caller's" in caplog.text


async def test_a_fault_of_the_program_is_told_to_everybody_and_ends_nothing(start: Start) -> None:
    setup = start(senders=1)

    asked = [setup.ask(deduct("u", 1)), setup.ask(("nonsense", "", "", "", "u"))]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [ScriptError, ScriptError]
    assert "lua/apply.lua:" in str(outcomes[0])
    assert await setup.available() == 1_000_000


async def test_a_forgotten_script_is_invisible(start: Start, server: Server) -> None:
    setup = start()

    for n in range(1, 6):
        server.client.script_flush()
        assert (await setup.ask(deduct("u", 1)))[0].split(" ")[-3] == str(1_000_000 - n)
    assert len(setup.recorder.sizes) == 5


async def test_closing_lets_what_was_accepted_finish(start: Start) -> None:
    setup = start(senders=1, batch_max=2)
    asked = [setup.ask(deduct("u", 1)) for _ in range(9)]

    await setup.batcher.close()

    assert [future.done() for future in asked] == [True] * 9
    with pytest.raises(Overloaded) as refused:
        setup.ask(deduct("u", 1))
    assert refused.value.reason == "draining"


async def test_a_barred_batcher_sends_nothing(start: Start) -> None:
    setup = start()
    setup.batcher.barred = RedisUnavailable("redis", "not opened")

    for _ in range(2):
        with pytest.raises(RedisUnavailable, match="not opened"):
            await setup.ask(deduct("u", 1))
    assert setup.recorder.sizes == []
    assert setup.batcher.barred.__traceback__ is None


async def test_what_is_late_is_not_done_and_the_rest_of_its_batch_is(start: Start) -> None:
    """X4: of one batch, a call whose caller has been told already and another that has time."""
    setup = start(senders=1)
    await setup.available()  # a reply tells Redis' clock
    setup.recorder.gate.clear()
    loop = asyncio.get_running_loop()
    told: list[Lines | MeterError] = []
    setup.batcher.submit((deduct("u", 1),), told.append, begin_by=loop.time() + 0.02)
    patient = setup.ask(deduct("u", 10))
    await asyncio.sleep(0.05)
    setup.recorder.gate.set()

    assert (await patient)[0].startswith("0 ok ")
    assert [type(one) for one in told] == [NotBegun]
    assert await setup.available() == 999_990


async def test_a_clock_that_was_set_forward_delays_nothing_but_one_call(start: Start) -> None:
    setup = start(senders=1)
    await setup.available()
    setup.batcher._clock.learn(1, asyncio.get_running_loop().time())  # Redis' clock was far behind when it last told

    assert await setup.available() == 1_000_000
    assert len(setup.recorder.sizes) == 3


@pytest.mark.parametrize("applied", [True, False])
async def test_what_became_of_a_batch_without_a_reply_is_found_out(
    start: Start, monkeypatch: pytest.MonkeyPatch, *, applied: bool
) -> None:
    setup = start(senders=1, timeout_seconds=0.05)
    inner, replies = setup.recorder.run, []

    async def silent(program: Program, keys: Sequence[str], arguments: Sequence[str | int]) -> str:
        if arguments[2] != "each":
            return await inner(program, keys, arguments)
        replies.append(await inner(program, keys, arguments) if applied else "")
        raise RedisUnavailable("redis", "the connection was lost")

    monkeypatch.setattr(setup.recorder, "run", silent)
    told: list[Lines | MeterError] = []
    begin_by = asyncio.get_running_loop().time() + 1
    setup.batcher.submit((deduct("u", 1), deduct("u", 2)), told.append)
    setup.batcher.submit((deduct("u", 3),), told.append, begin_by=begin_by)
    while len(told) < 2:
        await asyncio.sleep(0.001)
    undecided = told[1]

    assert isinstance(undecided, Undecided)
    async with asyncio.timeout(DEADLINE_SECONDS):
        outcome = await undecided.outcome
    if applied:
        assert isinstance(outcome, list) and [line.split(" ")[4] for line in outcome] == ["3"]
    else:
        assert isinstance(outcome, NotBegun)
    monkeypatch.undo()
    assert await setup.available() == (999_994 if applied else 1_000_000)


async def test_twelve_credits_and_thirteen_deducts(server: Server, engine: Engine) -> None:
    await engine.run("u", grant("u", "g", 12))

    lines = await asyncio.gather(*(engine.run("u", deduct("u", 1)) for _ in range(13)))

    assert sorted(line.split(" ")[1] for line in lines) == ["insufficient"] + ["ok"] * 12


@pytest.mark.parametrize("lanes", [1, 4])
async def test_a_cap_of_five_credits_and_a_hundred_deducts(gateway: RedisGateway, lanes: int) -> None:
    """Of several processes at once: each has its own engine."""
    units = AmountScale(6).units
    settings = Settings(redis_timeout_ms=10_000, lanes=lanes, batch_max=3)
    async with Engine(gateway, settings) as one, Engine(gateway, settings) as other:
        await one.run("u", grant("u", "g", units("5.00")))

        lines = await asyncio.gather(*((one, other)[n % 2].run("u", deduct("u", units("0.10"))) for n in range(100)))

        assert sorted(line.split(" ")[1] for line in lines) == ["insufficient"] * 50 + ["ok"] * 50
        assert (await other.run("u", balance("u"))).endswith(" 0 0 0")


async def _finished(future: asyncio.Future[Lines]) -> bool:
    """Waits for a future; answers whether it failed."""
    with suppress(MeterError):
        await future
        return False
    return True
