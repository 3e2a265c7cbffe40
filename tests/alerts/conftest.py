"""A post and a receiver."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from tests.alerts.post import Post, post
from tests.alerts.receiver import Receiver, receiver

START = datetime(2030, 1, 31, 12, tzinfo=UTC)


@pytest.fixture
async def office() -> AsyncIterator[Post]:
    """A post whose clock stands at START."""
    async with post(START) as found:
        yield found


@pytest.fixture
async def hook() -> AsyncIterator[Receiver]:
    """A receiver of webhooks."""
    async with receiver() as found:
        yield found
