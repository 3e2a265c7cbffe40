"""`Meter` and `MeterClient` are one API: the same calls give the same results, in process and over HTTP."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from fakeredis import FakeServer

from meter import Credits, HoldRefused, Meter, MeterClient, Refusal
from meter.contract import answers
from meter.errors import Unavailable
from meter.testing import fake_app, fake_meter
from tests.api.sidecar import serving

UNITS_MAX = Decimal("9007199254.740991")
START = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
async def ways() -> AsyncIterator[list[Credits]]:
    """A meter in process and a client over HTTP, each with an account book of its own whose clock stands at START."""
    other = FakeServer()
    async with fake_meter() as here, fake_meter(other) as behind:
        for meter in (here, behind):
            await meter._call("set_clock", answers.Clock, body={"now": START})
        with serving(fake_app(other)) as url:
            async with MeterClient(url) as client:
                yield [here, client]


@pytest.fixture(params=[0, 1], ids=["in process", "over HTTP"])
def meter(request: pytest.FixtureRequest, ways: list[Credits]) -> Credits:
    """Each of the two."""
    chosen: int = request.param
    return ways[chosen]


Script = Callable[[Credits], Coroutine[Any, Any, list[Any]]]


async def spending(meter: Credits) -> list[Any]:
    return [
        await meter.add("u", 100, description="Welcome", grant_id="g", metadata={"n": [1, 1.5, None]}),
        await meter.add("u", 100, grant_id="g", description="Welcome", metadata={"n": [1, 1.5, None]}),
        await meter.add("u", "0.5", grant_id="h", priority=0, effective_at=START, expires_at=START + timedelta(days=1)),
        await meter.deduct("u", Decimal("0.25"), idempotency_key="k", metadata={}),
        await meter.deduct("u", 0.25, idempotency_key="k", metadata={}),
        await meter.deduct("u", 1, idempotency_key="k"),
        await meter.deduct("u", 1000),
        await meter.deduct("u", 1000, shortfall="partial", description="all"),
        await meter.deduct("a b", 1),
        await meter.deduct("u", -1),
        await meter.deduct("u", 10**30),
        await meter.deduct("u", float("nan")),
        await meter.deduct("u", 1, idempotency_key="clé"),
        await meter.deduct("u", 1, idempotency_key=""),
        await meter.balance("u"),
        await meter.balance("org/team/ key"),
        await meter.balance("u", at=START.astimezone(timezone(timedelta(hours=5, minutes=30))) - timedelta(days=1)),
        await meter.balance(""),
    ]


async def holding(meter: Credits) -> list[Any]:
    return [
        await meter.add("org/u", 100, grant_id="g"),
        await meter.hold("org/u", 10, reservation_id="r", ttl_seconds=1.5, description="job", metadata={"a": "ü"}),
        await meter.extend("r", ttl_seconds=60, add_amount="2.5", idempotency_key="k"),
        await meter.reservation("r"),
        await meter.reservations("org/u"),
        await meter.commit("r", 20, over="reject"),
        await meter.commit("r", 20, over="hold_only"),
        await meter.commit("r", 10**6, over="overdraft", shortfall="reject"),
        await meter.commit("r", 12.5, description="done"),
        await meter.commit("r", Decimal("12.50")),
        await meter.commit("r", 1),
        await meter.release("r"),
        await meter.release("unknown"),
        await meter.extend("unknown", add_amount=Decimal("1E+1")),
        await meter.hold("org/u", 1, reservation_id="s"),
        await meter.release("s"),
        await meter.release("s"),
        await meter.hold("org/u", 1000, reservation_id="t"),
        await meter.reservations("org/u", limit=1),
    ]


async def managing(meter: Credits) -> list[Any]:
    added = await meter.add("org/u", Decimal("1E+2"), grant_id="g", expires_at=START + timedelta(days=3))
    charge = await meter.deduct("org/u", 20)
    assert isinstance(charge, answers.Deducted) and charge.transaction_id
    return [
        added,
        await meter.refund("org/u", charge.transaction_id, 5, description="sorry", idempotency_key="k"),
        await meter.refund("org/u", charge.transaction_id, 50),
        await meter.refund("org/u", "0-99-x-1"),
        await meter.configure(
            "org/u", overdraft_limit="7.5", low_credit_thresholds=[5, Decimal("0.1")], suspended=False
        ),
        await meter.configure("org/u", metadata={"plan": "pro", "share": 0.1}),
        await meter.user("org/u"),
        await meter.explain("org/u", 0.000001),
        await meter.explain("org/u", Decimal("1E+3")),
        await meter.explain("org/u", "x"),
        await meter.grants("org/u", state="all", limit=1),
        await meter.expiring("org/u", days=3.5),
        await meter.history("org/u", kind="deduct", from_=START, to=START + timedelta(hours=1)),
        await meter.history("org/u", limit=2),
        await meter.history("org/u", cursor="x"),
        await meter.void("org/u", "g"),
        await meter.void("org/u", "g"),
        await meter.void("org/u", "unknown"),
        await meter.adjust("org/u", 3, "An outage", grant_id="amends", idempotency_key="a"),
        await meter.adjust("org/u", "-0.5", "Too much", reference="case-7", metadata={"n": 1}, idempotency_key="b"),
        await meter.adjust("org/u", -100, "Too much"),
    ]


async def batches(meter: Credits) -> list[Any]:
    deduct = {"op": "deduct", "user_id": "u", "amount": Decimal("1.5")}
    await meter.add("u", 10)
    return [
        await meter.batch([deduct, {"op": "commit", "reservation_id": "unknown"}], idempotency_key="k"),
        await meter.batch([deduct, {**deduct, "amount": 100}], atomic=True),
        await meter.batch([deduct, deduct], idempotency_key="j"),
        await meter.batch([deduct, deduct], idempotency_key="j"),
        await meter.batch([]),
        await meter.batch([{"op": "add"}]),
    ]


def comparable(answer: Any) -> Any:
    """An answer without the ids that differ from account book to account book."""
    text = answer.model_dump()
    text["replayed"] = getattr(answer, "replayed", None)
    return type(answer).__name__, bool(answer), _without_ids(text)


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: "…" if name in ("transaction_id", "request_id") and inner else _without_ids(inner)
            for name, inner in value.items()
        }
    return [_without_ids(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("script", [spending, holding, managing, batches])
async def test_the_same_calls_give_the_same_results(ways: list[Credits], script: Script) -> None:
    here, there = [[comparable(answer) for answer in await script(meter)] for meter in ways]
    assert len(here) == len(there) >= 6
    for one, other in zip(here, there, strict=True):
        assert one == other


def test_neither_has_a_call_that_the_other_lacks() -> None:
    def calls(kind: type) -> set[str]:
        return {
            name for name, member in inspect.getmembers(kind) if inspect.isfunction(member) and not name.startswith("_")
        }

    assert calls(MeterClient) == calls(Credits)
    assert calls(Meter) - calls(Credits) == {"advance", "fastapi_router"}


async def test_an_answer_is_typed_exact_and_true_and_a_refusal_false(meter: Credits) -> None:
    added = await meter.add("u", UNITS_MAX)
    assert isinstance(added, answers.Added) and added and not added.replayed
    assert added.available == added.amount == UNITS_MAX
    taken = await meter.deduct("u", "0.000001")
    assert isinstance(taken, answers.Deducted) and taken.available == Decimal("9007199254.740990")
    held = await meter.hold("u", 1.5, ttl_seconds=60)
    assert isinstance(held, answers.Reserved)
    assert (held.expires_at, held.expires_in) == (START + timedelta(minutes=1), 60)
    refused = await meter.deduct("u", UNITS_MAX)
    assert isinstance(refused, Refusal) and not refused
    assert (refused.status, refused.code, refused.type) == (
        402,
        "INSUFFICIENT_CREDITS",
        "/problems/insufficient-credits",
    )
    assert refused.model_extra is not None
    assert refused.model_extra["required"] == UNITS_MAX
    assert refused.model_extra["available"] == Decimal("9007199253.240990")


async def test_amounts_of_a_batch_are_exact_too(meter: Credits) -> None:
    await meter.add("u", UNITS_MAX)
    answer = await meter.batch([{"op": "deduct", "user_id": "u", "amount": UNITS_MAX}])
    assert isinstance(answer, answers.BatchAnswer)
    assert (answer.results[0]["taken"], answer.results[0]["available"]) == (UNITS_MAX, 0)


async def test_a_repeated_call_is_marked(meter: Credits) -> None:
    await meter.add("u", 10)
    first = await meter.deduct("u", 1, idempotency_key="k")
    again = await meter.deduct("u", 1, idempotency_key="k")
    assert isinstance(first, answers.Deducted) and isinstance(again, answers.Deducted)
    assert (first.replayed, again.replayed) == (False, True)
    assert again.model_copy(update={"replayed": False}) == first


async def available(meter: Credits) -> tuple[float, float]:
    """Available and reserved credits of user u."""
    balance = await meter.balance("u")
    assert isinstance(balance, answers.Balance)
    return float(balance.available), float(balance.reserved)


async def test_a_block_charges_what_it_commits(meter: Credits) -> None:
    await meter.add("u", 100)
    async with meter.reserve("u", 50, description="job", metadata={"n": 1}) as hold:
        assert await available(meter) == (50, 50)
        assert await hold.commit(32.5)
    assert isinstance(hold.outcome, answers.Committed) and hold.outcome.charged == Decimal("32.5")
    assert await available(meter) == (67.5, 0)


async def test_a_block_without_a_commit_is_charged_whole(meter: Credits) -> None:
    await meter.add("u", 100)
    async with meter.reserve("u", 50, reservation_id="r") as hold:
        assert hold.reservation_id == "r"
    assert isinstance(hold.outcome, answers.Committed) and hold.outcome.charged == 50
    assert await available(meter) == (50, 0)


async def test_a_block_that_raises_gives_all_back(meter: Credits) -> None:
    await meter.add("u", 100)
    with pytest.raises(ZeroDivisionError):
        async with meter.reserve("u", 50) as hold:
            raise ZeroDivisionError
    assert isinstance(hold.outcome, answers.Released)
    assert await available(meter) == (100, 0)


async def test_a_block_that_committed_and_then_raises_stays_charged(meter: Credits) -> None:
    await meter.add("u", 100)
    with pytest.raises(ZeroDivisionError):
        async with meter.reserve("u", 50) as hold:
            await hold.commit(1)
            raise ZeroDivisionError
    assert await available(meter) == (99, 0)


async def test_a_block_that_is_cancelled_gives_all_back_however_often_it_is_cancelled(meter: Credits) -> None:
    await meter.add("u", 100)
    begun = asyncio.Event()

    async def work() -> None:
        async with meter.reserve("u", 50):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline = asyncio.get_running_loop().time() + 10
    while await available(meter) != (100, 0):
        assert asyncio.get_running_loop().time() < deadline


async def test_a_block_that_takes_too_long_ends_as_a_timeout(meter: Credits) -> None:
    await meter.add("u", 100)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), meter.reserve("u", 50):
            await asyncio.Event().wait()
    assert await available(meter) == (100, 0)


async def test_a_block_that_releases_is_not_charged(meter: Credits) -> None:
    await meter.add("u", 100)
    async with meter.reserve("u", 50) as hold:
        assert await hold.release()
    assert await available(meter) == (100, 0)


async def test_a_block_whose_hold_was_ended_elsewhere_says_so(meter: Credits) -> None:
    await meter.add("u", 100)
    async with meter.reserve("u", 50, reservation_id="r") as hold:
        await meter.release("r")
    assert isinstance(hold.outcome, Refusal) and hold.outcome.code == "RESERVATION_RELEASED"
    assert await available(meter) == (100, 0)


async def test_a_refused_commit_leaves_the_block_to_decide(meter: Credits) -> None:
    await meter.add("u", 60)
    async with meter.reserve("u", 50) as hold:
        assert not await hold.commit(61, over="reject")
        assert hold.outcome is None
        assert await hold.commit(60, over="reject")
    assert await available(meter) == (0, 0)


async def test_a_refused_hold_never_runs_its_block(meter: Credits) -> None:
    await meter.add("u", 10)
    with pytest.raises(HoldRefused, match="do not cover") as raised:
        async with meter.reserve("u", 50):
            pytest.fail("the block ran")
    assert raised.value.refusal.code == "INSUFFICIENT_CREDITS"
    assert await available(meter) == (10, 0)


async def test_two_hundred_deducts_at_once_pass_a_hundred_times(meter: Credits) -> None:
    await meter.add("u", 100)
    answers = await asyncio.gather(*(meter.deduct("u", 1) for _ in range(200)))
    assert sum(map(bool, answers)) == 100
    assert await available(meter) == (0, 0)


async def test_the_exception_of_a_block_is_not_hidden_by_an_outage() -> None:
    server = FakeServer()
    async with fake_meter(server, redis_timeout_ms=50) as here:
        await here.add("u", 10)
        with pytest.raises(ZeroDivisionError):
            async with here.reserve("u", 5):
                server.connected = False
                raise ZeroDivisionError
        with pytest.raises(Unavailable):
            await here.balance("u")
        server.connected = True
        assert await here.balance("u")
