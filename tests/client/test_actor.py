"""U9: who asked, from Python: in process, over HTTP and blocking."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fakeredis import FakeServer

from meter import Credits, MeterClient, Refusal, sync
from meter.testing import fake_app, fake_meter
from tests.api.sidecar import serving


@pytest.fixture(params=["in process", "over HTTP"])
async def meter(request: pytest.FixtureRequest) -> AsyncIterator[Credits]:
    if request.param == "in process":
        async with fake_meter(store_url="memory://") as found:
            yield found
    else:
        with serving(fake_app(FakeServer(), store_url="memory://")) as url:
            async with MeterClient(url) as client:
                yield client


async def actors(meter: Credits) -> list[tuple[str, str | None, str | None]]:
    found = await meter.history("u")
    assert not isinstance(found, Refusal)
    return [(row.kind, row.actor, row.description) for row in reversed(found.items)]


async def test_u9_each_call_by_somebody_says_who(meter: Credits) -> None:
    ada, bo = meter.by("ada@support"), meter.by("bo")
    await ada.add("u", 50, grant_id="g", description="goodwill")
    await ada.deduct("u", 5)
    async with bo.reserve("u", 3) as hold:
        await hold.commit(2)
    await meter.deduct("u", 1)
    await bo.configure("u", suspended=True, description="fraud")
    await bo.void("u", "g")

    assert await actors(meter) == [
        ("grant", "ada@support", "goodwill"),
        ("deduct", "ada@support", None),
        ("reserve", "bo", None),
        ("commit", "bo", None),
        ("deduct", None, None),
        ("account", "bo", "fraud"),
        ("void", "bo", None),
    ]


async def test_u9_changes_of_plans_say_who(meter: Credits) -> None:
    ada = meter.by("ada")
    await ada.create_plan("Pro", plan_id="pro", credit_limit=5, price=1, billing_period="monthly")
    await ada.subscribe("u", "pro")
    found = await meter.events(kind="change")
    assert not isinstance(found, Refusal)
    assert [(one.message, one.detail["actor"]) for one in reversed(found.items) if isinstance(one.detail, dict)] == [
        ("create_plan", "ada"),
        ("subscribe", "ada"),
    ]


@pytest.mark.parametrize("wrong", ["", "a b", "x" * 129, 'a"b', "\xe9", "a\n"])
async def test_u9_who_cannot_be_kept_is_refused_before_anything_is_sent(meter: Credits, wrong: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        meter.by(wrong)


def test_u9_blocking() -> None:
    with sync.Meter(fake_meter(store_url="memory://")) as meter:
        meter.by("ada").add("u", 50)
        with meter.by("bo").reserve("u", 3) as hold:
            hold.commit(2)
        meter.deduct("u", 1)
        found = [(row.kind, row.actor) for row in reversed(meter.history("u").items)]
    assert found == [("grant", "ada"), ("reserve", "bo"), ("commit", "bo"), ("deduct", None)]
