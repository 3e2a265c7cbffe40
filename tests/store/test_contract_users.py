"""A2: users by what they have and did, in any order, a page at a time."""

from __future__ import annotations

from typing import Any

import pytest

from meter.store.base import Store
from meter.store.usage import Added
from meter.store.usage_rows import UsageRow
from meter.store.users import UserFound, UsersWanted, value_of
from tests.store.samples import T0, account, flush
from tests.store.test_contract_catalog import subscription

HOUR = 3_600_000


@pytest.fixture
async def full(store: Store) -> Store:
    """u0 to u5, and team/a, which spent most today."""
    accounts = [
        account(f"u{n}", available=10 * (n % 3), debt=n if n == 5 else 0, suspended=n == 1, last_spent_at_ms=T0 + n)
        for n in range(5)
    ]
    accounts.append(account("u5", available=0, debt=7))
    accounts.append(account("team/a", available=5, profile={"team": "red", "floor": 3}))
    usage = [
        UsageRow(path="team/a", bucket_ms=T0, requests=1, charged=900),
        UsageRow(path="team/a", bucket_ms=T0 + HOUR, requests=1, charged=90, refunded=4),
        UsageRow(path="team/a", bucket_ms=T0 - HOUR, requests=1, charged=5_000),
        UsageRow(path="u1", bucket_ms=T0, requests=1, charged=900),
        UsageRow(path="u2", bucket_ms=T0 - HOUR, requests=1, charged=9_000),
    ]
    await store.apply(flush(None, accounts=accounts, usage=Added(usage)))
    for user_id, plan_id, state in (("u1", "pro", "active"), ("u2", "pro", "ended"), ("u4", "free", "active")):
        row = subscription(user_id=user_id, plan_id=plan_id, state=state)
        assert await store.insert(row)
    return store


async def all_pages(store: Store, limit: int, **wanted: Any) -> list[UserFound]:
    asked = UsersWanted(T0, **wanted)
    found: list[UserFound] = []
    while True:
        after = (value_of(found[-1], asked.order), found[-1].account.user_id) if found else None
        page = await store.users(asked, after, limit)
        found += page
        if len(page) < limit:
            return found


def ids(found: list[UserFound]) -> list[str]:
    return [one.account.user_id for one in found]


@pytest.mark.parametrize("limit", [1, 3, 50])
async def test_a2_users_in_every_order(full: Store, limit: int) -> None:
    assert ids(await all_pages(full, limit)) == ["team/a", "u0", "u1", "u2", "u3", "u4", "u5"]
    by_spent = await all_pages(full, limit, order="spent_today", descending=True)
    assert [(one.account.user_id, one.spent) for one in by_spent[:3]] == [("team/a", 986), ("u1", 900), ("u0", 0)]
    assert ids(by_spent[2:]) == ["u0", "u2", "u3", "u4", "u5"]
    assert ids(await all_pages(full, limit, order="available", descending=True)) == [
        *("u2", "u1", "u4", "team/a", "u0", "u3", "u5"),
    ]
    assert ids(await all_pages(full, limit, order="debt", descending=True))[:2] == ["u5", "team/a"]
    assert ids(await all_pages(full, limit, order="last_spent_at")) == [
        *("team/a", "u5", "u0", "u1", "u2", "u3", "u4"),
    ]


async def test_a2_users_by_state_plan_prefix_and_metadata(full: Store) -> None:
    assert ids(await all_pages(full, 2, state="suspended")) == ["u1"]
    assert ids(await all_pages(full, 2, state="in_debt")) == ["u5"]
    assert ids(await all_pages(full, 2, state="empty")) == ["u0", "u3", "u5"]
    assert ids(await all_pages(full, 2, state="active")) == ["team/a", "u2", "u4"]
    assert [(one.account.user_id, one.plan_ids) for one in await all_pages(full, 2, plan_id="pro")] == [
        ("u1", ("pro",))
    ]
    assert ids(await all_pages(full, 2, starts_with="team/", order="available")) == ["team/a"]
    assert ids(await all_pages(full, 2, member=("team", "red"))) == ["team/a"]
    assert ids(await all_pages(full, 2, member=("floor", "3"))) == ["team/a"]
    assert ids(await all_pages(full, 2, member=("team", "blue"))) == []
