"""Holds end as they should: rounded, tried again, undone, and waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal

import pytest
from fakeredis import FakeRedis, FakeServer

from meter import Credits, Meter, Refusal
from meter.charging import settlements, verdicts
from meter.charging.admission import Admitted
from meter.charging.charge import Charge, Charger
from meter.charging.policy import ChargePolicy, Ending, Verdict
from meter.charging.settlements import BackgroundSettlements
from meter.charging.verdicts import VerdictRunner
from meter.client.calls import Carrier
from meter.contract.answers import Committed
from meter.errors import Unavailable
from meter.keys import PartitionKeys
from meter.testing import fake_meter
from meter.usage import Number
from tests.partition import entries_of
from tests.proxy.proxied import balance
from tests.proxy.serving import until, until_it

HOLD = Admitted("user-1", 100)


class Flaky:
    """Carries calls to a meter, but loses some: before they arrive, or their answers."""

    def __init__(self, meter: Meter) -> None:
        self._carry: Carrier = meter._carry
        self.calls: list[str] = []
        self.bodies: list[bytes | None] = []
        self.lose_calls: list[str] = []
        self.lose_answers: list[str] = []

    async def __call__(
        self,
        name: str,
        path: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes | None,
        key: str | None,
        actor: str = "",
    ) -> tuple[int, bytes, bool]:
        self.calls.append(name)
        self.bodies.append(body)
        if name in self.lose_calls:
            self.lose_calls.remove(name)
            raise Unavailable("test", "the call was lost")
        answer = await self._carry(name, path, query, body, key)
        if name in self.lose_answers:
            self.lose_answers.remove(name)
            raise Unavailable("test", "the answer was lost")
        return answer


async def opened(charger: Charger, admitted: Admitted = HOLD) -> Charge:
    charge = await charger.open(admitted)
    assert isinstance(charge, Charge)
    return charge


async def committed(meter: Meter, amount: Number | None, estimate: Number = 100) -> Committed:
    charger = Charger(meter, ChargePolicy())
    charge = await opened(charger, Admitted("user-1", estimate))
    answer = await VerdictRunner(meter, "cap").run(charge.reserved.reservation_id, Verdict(True, amount))
    assert isinstance(answer, Committed)
    charge.settle(Ending.CUT)
    await charger.settlements.drain()
    return answer


@pytest.mark.parametrize(
    ("usage", "charged"),
    [
        (42, 42),
        (0, 0),
        (Decimal("1E+2"), 100),
        (Decimal("0.5"), Decimal("0.5")),
        (Decimal("0.00014523"), Decimal("0.000146")),
        (Decimal("1E-60"), Decimal("0.000001")),
        (Decimal("7.0"), 7),
        (1500, 1000),
        (2**53 - 1, 100),
        (None, 100),
    ],
    ids=str,
)
async def test_usage_is_charged_rounded_up_to_what_the_meter_counts(
    bank: Meter, usage: Number | None, charged: object
) -> None:
    assert (await committed(bank, usage)).charged == charged


async def test_the_meters_decimal_places_are_found_once(meter_server: FakeServer) -> None:
    async with fake_meter(meter_server, decimal_places=2) as meter:
        await meter.add("user-1", 1000)
        flaky = Flaky(meter)
        charger, runner = Charger(Credits(flaky), ChargePolicy()), VerdictRunner(Credits(flaky), "cap")
        for usage in (Decimal("0.001"), Decimal("0.0049")):
            charge = await opened(charger)
            await runner.run(charge.reserved.reservation_id, Verdict(True, usage))
            charge.settle(Ending.CUT)
        await charger.settlements.drain()

        assert await balance(meter) == (Decimal("999.98"), 0)
        assert flaky.calls.count("commit") == 8 + 1


async def test_x4_all_that_is_held_is_charged_once_though_its_answer_gets_lost(bank: Meter) -> None:
    """Usage beyond the hold, of which no more is to be charged: the retry begins with the usage again."""
    charger = Charger(bank, ChargePolicy())
    charge = await opened(charger)
    held = charge.reserved.reservation_id
    flaky = Flaky(bank)
    runner = VerdictRunner(Credits(flaky), "hold_only")
    flaky.lose_answers = ["commit"]
    with pytest.raises(Unavailable):  # of the refusal
        await runner.run(held, Verdict(True, 1200))
    assert isinstance(await runner.run(held, Verdict(True, 1200)), Committed)  # of the charge, let us say

    answer = await runner.run(held, Verdict(True, 1200))

    assert isinstance(answer, Committed) and answer.charged == 100
    charge.settle(Ending.CUT)
    await charger.settlements.drain()
    assert await balance(bank) == (900, 0)


async def test_a_settlement_is_tried_until_the_meter_answers(bank: Meter) -> None:
    flaky = Flaky(bank)
    charger = Charger(Credits(flaky), ChargePolicy())
    charge = await opened(charger)
    flaky.lose_calls = ["commit"]
    flaky.lose_answers = ["commit"]
    charge.respond(200, [(b"content-type", b"application/json")])
    charge.see(b'{"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}')

    assert isinstance(await charge.settle(Ending.CLEAN), Committed)
    assert await balance(bank) == (997, 0)
    assert flaky.calls.count("commit") == 3


async def test_a_settlement_that_cannot_be_made_is_given_up_with_a_word(
    bank: Meter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(settlements, "RETRY_SECONDS_MAX", 0.0)
    flaky = Flaky(bank)
    charger = Charger(Credits(flaky), ChargePolicy())
    charge = await opened(charger)
    flaky.lose_calls = ["release"]

    assert await charge.settle(Ending.CUT) is None
    assert f"reservation {charge.reserved.reservation_id} (to be released) was not settled" in caplog.text
    await bank.release(charge.reserved.reservation_id)


async def test_a_settlement_never_raises(
    bank: Meter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_: str) -> None:
        raise RuntimeError("a bug")

    charger = Charger(bank, ChargePolicy())
    charge = await opened(charger)
    with monkeypatch.context() as patched:
        patched.setattr(bank, "release", fail)
        assert await charge.settle(Ending.CUT) is None

    assert "a bug" in caplog.text
    await bank.release(charge.reserved.reservation_id)


async def test_a_hold_whose_answer_was_lost_is_released(bank: Meter) -> None:
    flaky = Flaky(bank)
    flaky.lose_answers = ["reserve"]
    charger = Charger(Credits(flaky), ChargePolicy())
    with pytest.raises(Unavailable):
        await charger.open(HOLD)

    assert await balance(bank) == (900, 100)
    await charger.settlements.drain()
    assert await balance(bank) == (1000, 0)


async def test_a_hold_that_nobody_waits_for_any_more_is_released(bank: Meter) -> None:
    charger = Charger(bank, ChargePolicy())
    opening = asyncio.get_running_loop().create_task(charger.open(HOLD))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    await charger.settlements.drain()
    assert await balance(bank) == (1000, 0)


async def test_no_more_than_so_many_holds_are_undone_at_once(bank: Meter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "UNDO_MAX", 1)
    flaky = Flaky(bank)
    background, runner = BackgroundSettlements(), VerdictRunner(Credits(flaky), "cap")
    runner.undo("x_1", background)
    runner.undo("x_2", background)
    await background.drain()

    assert flaky.calls == ["release"]


async def test_a_hold_that_is_made_after_its_release_is_released_again(
    bank: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "UNDO_PAUSES_SECONDS", (0.01,) * 500)
    flaky = Flaky(bank)
    flaky.lose_calls = ["reserve", "release"]
    charger = Charger(Credits(flaky), ChargePolicy())
    with pytest.raises(Unavailable):
        await charger.open(HOLD)
    await until(lambda: flaky.calls.count("release") >= 3, "three tries to release nothing")
    sent = flaky.bodies[0]
    assert sent is not None
    await bank._carry("reserve", {}, {}, sent, None)

    async def is_released() -> bool:
        return await balance(bank) == (1000, 0)

    await until_it(is_released, "the hold that came late is gone")
    await charger.settlements.drain()


async def test_closing_settles_what_did_not_end(bank: Meter) -> None:
    charger = Charger(bank, ChargePolicy())
    told, untold = await opened(charger), await opened(charger)
    for charge in (told, untold):
        charge.respond(200, [(b"content-type", b"text/event-stream")])
    told.see(b'data: {"usage":{"input_tokens":1,"output_tokens":2}}\n\n')
    await charger.close()

    assert await balance(bank) == (997, 0)


async def test_the_first_ending_counts(bank: Meter) -> None:
    charger = Charger(bank, ChargePolicy())
    charge = await opened(charger)

    assert charge.settle(Ending.GONE) is charge.settle(Ending.CLEAN)
    await charger.settlements.drain()
    assert await balance(bank) == (900, 0)


async def test_draining_has_an_end(bank: Meter, caplog: pytest.LogCaptureFixture) -> None:
    background = BackgroundSettlements()
    task = background.spawn(asyncio.sleep(3600))
    await background.drain(0.01)

    assert "1 settlements were still undecided" in caplog.text
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_hold_is_renewed_while_the_exchange_lasts(bank: Meter) -> None:
    flaky = Flaky(bank)
    flaky.lose_calls = ["extend"]  # one that fails costs nothing
    await bank.advance(1)  # the meter's clock stands, so that a busy machine ends no hold
    charger = Charger(Credits(flaky), ChargePolicy(ttl_seconds=0.3))
    charge = await opened(charger)
    await until(lambda: flaky.calls.count("extend") >= 3, "three renewals")
    await charge.settle(Ending.CUT)

    assert await balance(bank) == (1000, 0)


async def test_a_hold_that_ended_meanwhile_is_renewed_no_more_and_charged_late(
    bank: Meter, caplog: pytest.LogCaptureFixture
) -> None:
    charger = Charger(bank, ChargePolicy(ttl_seconds=0.3))
    charge = await opened(charger)
    await bank.advance(3600)
    await until(lambda: "ended before its request" in caplog.text, "the renewal is refused")
    charge.respond(200, [(b"x-none", b"")])
    charge.see(b'{"usage":{"input_tokens":1,"output_tokens":2}}')
    answer = await charge.settle(Ending.CLEAN)

    assert isinstance(answer, Committed) and answer.late
    assert await balance(bank) == (997, 0)


async def test_a_refused_settlement_is_told(bank: Meter, caplog: pytest.LogCaptureFixture) -> None:
    charger = Charger(bank, ChargePolicy())
    charge = await opened(charger)
    await bank.commit(charge.reserved.reservation_id, 5)
    answer = await charge.settle(Ending.CUT)

    assert isinstance(answer, Refusal) and answer.status == 409
    assert "(to be released) was not settled" in caplog.text

    async def is_settled() -> bool:
        return await balance(bank) == (995, 0)

    await until_it(is_settled, "what was committed stays")


async def test_the_request_id_is_in_the_ledger(bank: Meter, meter_server: FakeServer) -> None:
    charger = Charger(bank, ChargePolicy())
    charge = await opened(charger, Admitted("user-1", 1, "req-1"))
    await charge.settle(Ending.CUT)
    with FakeRedis(server=meter_server) as client:
        entries = entries_of(client.xrange(PartitionKeys(0).outbox))

    held = next(entry for entry in entries if entry.kind == "reserve")
    assert held.detail["metadata"] == {"request_id": "req-1"}
