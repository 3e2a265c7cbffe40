"""What responses and refusals tell of rate limits and budgets."""

from __future__ import annotations

from meter import Meter
from tests.middleware.shop import Shop, calling


async def test_responses_tell_where_the_tightest_rate_limit_stands(bank: Meter) -> None:
    await bank.configure("user-1", rate_limits={"rpm": {"kind": "requests", "limit": 2, "per_seconds": 3600}})
    async with calling(Shop(), bank) as client:
        for path, left in (("/api/chat", 1), ("/api/stream", 0)):
            served = await client.get(path)
            assert (served.status_code, served.headers["ratelimit-policy"]) == (200, '"rpm";q=2;w=3600')
            assert served.headers["ratelimit"].startswith(f'"rpm";r={left};t=')
        refused = await client.get("/api/chat")
        assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
        assert 0 < int(refused.headers["retry-after"]) <= 1800
        assert refused.headers["ratelimit"] == f'"rpm";r=0;t={refused.headers["retry-after"]}'


async def test_a_budget_says_when_its_window_ends(bank: Meter) -> None:
    await bank.configure("user-1", budgets={"hourly": {"limit": 120, "window": "hour"}})
    async with calling(Shop(), bank) as client:
        assert "ratelimit" not in (await client.get("/api/chat", headers={"X-Estimated-Tokens": "60"})).headers
        refused = await client.get("/api/chat", headers={"X-Estimated-Tokens": "110"})
        assert (refused.status_code, refused.json()["code"]) == (402, "BUDGET_REACHED")
        assert 0 < int(refused.headers["retry-after"]) <= 3600
