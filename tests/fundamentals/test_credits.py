"""What `meter` does, in ten short tests: read from top to bottom. Each uses what anybody may use, and no server.

The fixture `meter` comes with `meter-sidecar[testing]`: a `Meter` on a Redis in memory, whose clock stands still.
"""

from __future__ import annotations

import asyncio

import pytest

from meter import HoldRefused, Meter, Refusal

pytestmark = pytest.mark.anyio


async def test_credits_come_in_and_are_spent(meter: Meter) -> None:
    """A user is whoever is named; the first credits make the account. Every answer carries the balances after it."""
    await meter.add("ada", 100)
    answer = await meter.deduct("ada", 30)

    assert not isinstance(answer, Refusal)
    assert answer.taken == 30
    assert answer.available == 70


async def test_a_refusal_is_a_value_and_changes_nothing(meter: Meter) -> None:
    """It is false, and says why; an exception means that the call was not decided."""
    await meter.add("ada", 10)
    answer = await meter.deduct("ada", 11)

    assert isinstance(answer, Refusal)
    assert (bool(answer), answer.status, answer.code) == (False, 402, "INSUFFICIENT_CREDITS")
    assert (await balance(meter, "ada")) == 10


async def test_amounts_are_decimal_and_exact(meter: Meter) -> None:
    """Six places by default; what has more is refused, never rounded."""
    await meter.add("ada", "0.3")
    await meter.deduct("ada", "0.1")
    refused = await meter.deduct("ada", "0.0000001")

    assert await balance(meter, "ada") == pytest.approx(0.2, abs=0)
    assert isinstance(refused, Refusal)
    assert refused.status == 422


async def test_a_request_of_unknown_cost_is_held_and_then_settled(meter: Meter) -> None:
    """Hold what it may cost at most, serve it, commit what it did cost: the rest returns."""
    await meter.add("ada", 100)
    async with meter.reserve("ada", 50) as hold:
        assert await balance(meter, "ada") == 50
        await hold.commit(32.5)

    assert await balance(meter, "ada") == 67.5


async def test_a_request_that_fails_costs_nothing(meter: Meter) -> None:
    """An exception inside releases all that is held; so does the end of the hold, if nobody settles it."""
    await meter.add("ada", 100)
    with pytest.raises(ZeroDivisionError):
        async with meter.reserve("ada", 50):
            raise ZeroDivisionError

    assert await balance(meter, "ada") == 100


async def test_who_has_too_little_is_not_served(meter: Meter) -> None:
    """What is held is taken: two requests never spend the same credits."""
    await meter.add("ada", 60)
    async with meter.reserve("ada", 50):
        with pytest.raises(HoldRefused):
            async with meter.reserve("ada", 50):
                raise AssertionError("the second request was served")


async def test_a_hundred_callers_at_once_never_oversell(meter: Meter) -> None:
    """Each decision is one program on Redis."""
    await meter.add("ada", 40)
    answers = await asyncio.gather(*(meter.deduct("ada", 1) for _ in range(100)))

    assert sum(bool(answer) for answer in answers) == 40
    assert await balance(meter, "ada") == 0


async def test_a_repeated_call_is_done_once(meter: Meter) -> None:
    """The same key and the same call: the first answer. Another call under that key is refused."""
    await meter.add("ada", 100)
    first = await meter.deduct("ada", 30, idempotency_key="order-7")
    again = await meter.deduct("ada", 30, idempotency_key="order-7")
    other = await meter.deduct("ada", 31, idempotency_key="order-7")

    assert first == again.model_copy(update={"replayed": False})
    assert isinstance(other, Refusal)
    assert await balance(meter, "ada") == 70


async def test_what_ends_first_is_spent_first(meter: Meter) -> None:
    """By priority, then by the end; `explain` tells what a deduct would take, and changes nothing."""
    await meter.add("ada", 10, grant_id="bought")
    await meter.add("ada", 10, grant_id="gift", priority=1)
    plan = await meter.explain("ada", 15)

    assert not isinstance(plan, Refusal)
    assert [(burn.grant_id, int(burn.amount)) for burn in plan.burns] == [("gift", 10), ("bought", 5)]


async def test_every_change_is_a_row_of_the_history(meter: Meter) -> None:
    """The newest first; what a call answered as its transaction_id is found there."""
    await meter.add("ada", 100)
    charge = await meter.deduct("ada", 30)
    assert not isinstance(charge, Refusal)
    history = await meter.history("ada")
    assert not isinstance(history, Refusal)

    assert [row.kind for row in history.items] == ["deduct", "grant"]
    assert history.items[0].transaction_id == charge.transaction_id


async def balance(meter: Meter, user_id: str) -> float:
    """What a user has."""
    answer = await meter.balance(user_id)
    assert not isinstance(answer, Refusal)
    return float(answer.available)
