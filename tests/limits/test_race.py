"""Two sidecars on one Redis race for a budget."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx2
import pytest

from meter.app import create_app
from meter.config import load_settings
from tests.api.sidecar import serving
from tests.limits.conftest import Shop
from tests.servers import real_server

TOTAL = {"all": {"limit": 100, "window": "total"}}
LEVELS = ("acme", "acme/r", "acme/r/a")


async def _race(bases: list[str]) -> list[int]:
    async with httpx2.AsyncClient() as http:
        body = {"user_id": "acme/r/a", "amount": 1}
        calls = [http.post(f"{bases[n % 2]}/credits/deduct", json=body) for n in range(200)]
        return [answer.status_code for answer in await asyncio.gather(*calls)]


@pytest.mark.slow
def test_h28_two_hundred_racers_for_a_hundred(redis_url: str, tmp_path: Path) -> None:
    """Exactly a hundred are let through, at each of three levels."""
    client = real_server(redis_url).client
    settings = load_settings(redis_url=redis_url, store_url=f"sqlite:///{tmp_path}/m.db", redis_timeout_ms=10_000)
    with (
        serving(create_app(settings)) as first,
        serving(create_app(settings)) as second,
        httpx2.Client(base_url=first) as http,
    ):
        shop = Shop(http, client)
        shop.add("acme/r/a", 1000)
        for level in LEVELS:
            shop.budgets(level, **TOTAL)
        statuses = asyncio.run(_race([first, second]))
        assert (statuses.count(200), statuses.count(402)) == (100, 100)
        assert [shop.used(level, "all") for level in LEVELS] == [(100, 0)] * 3
