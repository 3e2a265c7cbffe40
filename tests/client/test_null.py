"""What the API takes null for, from Python: in process, over HTTP and blocking."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from fakeredis import FakeServer

from meter import NULL, Meter, MeterClient, Refusal, sync
from meter.testing import app_in_step, meter_in_step
from tests.api.sidecar import serving

GOLD = {"m": {"input": 1}}


async def cleared(meter: Meter | MeterClient) -> list[tuple[str | None, Decimal | int | None]]:
    """The card and the multiplier of a user: set, left, and one after the other taken away."""
    assert await meter.put_rate_card("gold", GOLD)
    found: list[tuple[str | None, Decimal | int | None]] = []
    for members in (
        {"rate_card": "gold", "price_multiplier": Decimal("1.5")},
        {"suspended": False},
        {"rate_card": NULL},
        {"price_multiplier": NULL},
    ):
        user = await meter.configure("u", **members)
        assert not isinstance(user, Refusal)
        found.append((user.rate_card, user.price_multiplier))
    return found


LEFT = [("gold", Decimal("1.5")), ("gold", Decimal("1.5")), (None, Decimal("1.5")), (None, None)]


async def test_a_member_is_taken_away(meter_server: FakeServer) -> None:
    async with meter_in_step(meter_server) as meter:
        await meter.add("u", 1)
        assert await cleared(meter) == LEFT


async def test_a_member_is_taken_away_over_http(meter_server: FakeServer) -> None:
    with serving(app_in_step(meter_server)) as url:
        async with MeterClient(url) as meter:
            await meter.add("u", 1)
            assert await cleared(meter) == LEFT
        await asyncio.to_thread(blocking_clears, url)


def blocking_clears(url: str) -> None:
    """The blocking twin passes it on."""
    with sync.MeterClient(url) as meter:
        assert meter.configure("u", rate_card="gold").rate_card == "gold"
        assert meter.configure("u", rate_card=NULL).rate_card is None
