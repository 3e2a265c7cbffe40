"""The town that the tests of plans call, in process and over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from tests.plans.town import Town, town

START = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.fixture(params=[False, True], ids=["in process", "over HTTP"])
async def both(request: pytest.FixtureRequest) -> AsyncIterator[Town]:
    """Each way in."""
    async with town(START, http=request.param) as found:
        yield found


@pytest.fixture
async def here() -> AsyncIterator[Town]:
    """In process alone."""
    async with town(START) as found:
        yield found
