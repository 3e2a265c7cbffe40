"""Calls within a process take no JSON (meter/api/direct.py) and answer as those that do: same values, same refusals."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest
from fakeredis import FakeServer

from meter import Meter
from meter.api.direct import DirectCalls
from meter.contract.answers import Answer, Refusal
from meter.testing import fake_meter

ASKED = {"description": "d", "reference": "r-1", "metadata": {"k": "v"}}
OF_TIME = ("transaction_id", "expires_at", "expires_in", "request_id")
"""Members that differ from call to call."""

Call = Callable[[Meter], Awaitable[Answer | Refusal]]

CALLS: dict[str, Call] = {
    "deduct": lambda meter: meter.deduct("u", 3),
    "deduct of a text": lambda meter: meter.deduct("u", "0.125"),
    "deduct of nothing": lambda meter: meter.deduct("u", 0),
    "deduct, described": lambda meter: meter.deduct("u", 1, description="d", reference="r", metadata={"k": "v"}),
    "deduct, partial": lambda meter: meter.deduct("u", 1000, shortfall="partial"),
    "deduct, refused": lambda meter: meter.deduct("u", 1000),
    "deduct, overdraft": lambda meter: meter.deduct("u", 1000, shortfall="overdraft"),
    "deduct, no shortfall": lambda meter: meter.deduct("u", 1, shortfall="tea"),  # type: ignore[arg-type]
    "deduct of less than nothing": lambda meter: meter.deduct("u", -1),
    "deduct of too many digits": lambda meter: meter.deduct("u", "0.0000001"),
    "deduct of no amount": lambda meter: meter.deduct("u", "1e3"),
    "deduct of yes": lambda meter: meter.deduct("u", True),
    "deduct from nobody": lambda meter: meter.deduct("", 1),
    "deduct with a NUL": lambda meter: meter.deduct("u", 1, description="a\0b"),
    "deduct with a long text": lambda meter: meter.deduct("u", 1, description="x" * 501),
    "hold": lambda meter: meter.hold("u", 5, reservation_id="h2"),
    "hold, chosen and described": lambda meter: meter.hold("u", "5.5", reservation_id="h3", ttl_seconds=7, **ASKED),  # type: ignore[arg-type]
    "hold, refused": lambda meter: meter.hold("u", 1000, reservation_id="h4"),
    "hold for too long": lambda meter: meter.hold("u", 1, reservation_id="h5", ttl_seconds=10**9),
    "hold of an id that cannot be": lambda meter: meter.hold("u", 1, reservation_id="a b"),
    "hold again": lambda meter: meter.hold("u", 20, reservation_id="h"),
    "hold of another amount": lambda meter: meter.hold("u", 21, reservation_id="h"),
    "commit": lambda meter: meter.commit("h", 7),
    "commit of all": lambda meter: meter.commit("h"),
    "commit of more": lambda meter: meter.commit("h", "30.25", over="cap"),
    "commit of more than is there": lambda meter: meter.commit("h", 3000, over="reject"),
    "commit of what is not": lambda meter: meter.commit("absent", 1),
    "commit of what cannot be": lambda meter: meter.commit("a b", 1),
    "commit, described": lambda meter: meter.commit("h", 1, **ASKED),  # type: ignore[arg-type]
    "release": lambda meter: meter.release("h"),
    "release, described": lambda meter: meter.release("h", **ASKED),  # type: ignore[arg-type]
    "release of what is not": lambda meter: meter.release("absent"),
}


async def _answered(call: Call, *, direct: bool, monkeypatch: pytest.MonkeyPatch) -> Answer | Refusal:
    with monkeypatch.context() as patched:
        if not direct:
            patched.setattr(DirectCalls, "takes", lambda *_: False)
        async with fake_meter(server=FakeServer()) as meter:
            assert await meter.add("u", "100.5")
            assert await meter.hold("u", 20, reservation_id="h")
            await call(meter)
            return await call(meter)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_both_ways_answer_alike(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call twice, so that what is remembered is compared, too."""
    direct = await _answered(call, direct=True, monkeypatch=monkeypatch)
    carried = await _answered(call, direct=False, monkeypatch=monkeypatch)

    assert type(direct) is type(carried)
    ours, theirs = direct.model_dump(), carried.model_dump()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert type(ours[name]) is type(value), name
        if name not in OF_TIME:
            assert ours[name] == value, name
    if isinstance(direct, Answer) and isinstance(carried, Answer):
        assert direct.replayed == carried.replayed


async def test_the_everyday_calls_take_no_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they come from middleware and proxy; a call with a key, or a value that JSON changes, goes the long way."""
    taken: list[tuple[str, bool]] = []
    takes = DirectCalls.takes

    def watched(self: DirectCalls, name: str, body: dict[str, object] | None, key: str | None) -> bool:
        taken.append((name, takes(self, name, body, key)))
        return taken[-1][1]

    monkeypatch.setattr(DirectCalls, "takes", watched)
    async with fake_meter() as meter:
        await meter.add("u", 100)
        await meter.hold("u", 5, reservation_id="h", reference="r", metadata={"request_id": "r"})
        await meter.commit("h", "2.5", over="cap")
        await meter.release("h")
        await meter.deduct("u", 1, idempotency_key="k")
        await meter.deduct("u", Decimal("0.5"))
        await meter.deduct("u", 1, metadata={"deep": {"er": 1}})
        await meter.deduct("u", 1, description="ä")

    assert taken == [
        ("add", False),
        *(("reserve", True), ("commit", True), ("release", True)),
        *(("deduct", False) for _ in range(4)),
    ]
