"""Two rebuilds of one partition: the later one has it, and the other says so."""

from __future__ import annotations

import pytest

from meter.engine import operations, upkeep
from meter.ledger.rebuild import RebuildFailed
from tests.ledger.ground import Ground
from tests.ledger.test_rebuild import rebuilding


async def test_x15_the_one_of_two_rebuilds_that_is_overtaken_says_so_in_one_line(ground: Ground) -> None:
    """X15: it was a Lua error with file and line."""
    ground.run(operations.grant("u", "g", 10))
    await ground.drain(ground.flusher())
    first, second = rebuilding(ground), rebuilding(ground)
    epoch = (await first.partition(0)).epoch
    assert (await second.partition(0)).epoch == epoch + 1
    for beat_at in (float("inf"), -1e9):  # noticed by Redis, or by the store first
        first._beat_at = beat_at
        with pytest.raises(RebuildFailed) as raised:
            await first._run(0, epoch, [upkeep.clock()])
        assert str(raised.value) == (
            f"partition 0: another rebuild holds epoch {epoch + 1}; this one, of epoch {epoch}, has ended"
        )
