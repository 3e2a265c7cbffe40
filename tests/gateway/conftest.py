"""A sidecar with a user who has 1000 credits."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.caller import Caller, calling


@pytest.fixture
def caller() -> Iterator[Caller]:
    """`u` has 1000 credits."""
    with calling() as found:
        found.add("u", 1000)
        yield found
