"""P7 on the databases themselves: what tests/plans/test_races.py does in memory, on SQLite and PostgreSQL."""

from __future__ import annotations

import pytest

from meter.store.connect import open_store
from tests.faults.conftest import postgres, store_url
from tests.plans.test_races import CALLS, FEW, race

__all__ = ["postgres", "store_url"]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("due", [False, True], ids=["within a period", "at its end"])
@pytest.mark.parametrize("one", ["afresh", "difference", "ending", "advance"])
async def test_p7_whoever_comes_in_between_the_outcome_is_serial(one: str, due: bool, store_url: str) -> None:
    store = open_store(store_url)
    try:
        await race(one, CALLS if store_url.startswith("sqlite") else FEW, due=due, store=store)
    finally:
        await store.close()
