"""Reading the outbox: each transaction once, in order, however many an entry has, and few that nobody asked for."""

from __future__ import annotations

from typing import Any

import pytest

from meter.engine import operations
from meter.engine import outbox_pages as module
from meter.engine.outbox import read_outbox_entry
from meter.engine.outbox_pages import FIRST_PAGE, read_outbox
from tests.ledger.ground import Ground


class Counted:
    """A gateway that counts the entries which it hands out."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.entries: list[int] = []

    async def outbox_entries(self, *asked: Any) -> Any:
        page = await self._real.outbox_entries(*asked)
        self.entries.append(len(page))
        return page


@pytest.mark.parametrize("sizes", [[1] * 130, [20] * 70, [1] * 60 + [30] * 20, [40] * 10 + [1] * 100])
async def test_what_is_read_is_what_is_there_whatever_the_size_of_a_call(ground: Ground, sizes: list[int]) -> None:
    for size in sizes:
        ground.partition.batch(*(operations.grant(f"u{n % 3}", f"g{size}-{n}", 0) for n in range(size)))
    total = ground.partition.entries()[-1].seq
    key = ground.partition.keys.outbox
    for first in (1, 2, 37, total):
        for limit in (1, 25, 100, 10_000):
            found = await read_outbox(ground.gateway, key, first, limit)
            assert [entry.seq for entry in found] == list(range(first, min(first + limit, total + 1)))
    assert await read_outbox(ground.gateway, key, total + 1, 5) == []


async def test_no_more_entries_are_asked_for_than_are_likely_to_be_wanted(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply of thousands of transactions that nobody wanted yet would be parsed, dropped and read again."""
    for n in range(3 * FIRST_PAGE):
        ground.partition.batch(*(operations.grant("u", f"g{n}-{m}", 0) for m in range(10)))
    counted: Any = Counted(ground.gateway)
    found = await read_outbox(counted, ground.partition.keys.outbox, 1, 700)
    assert (len(found), counted.entries) == (700, [FIRST_PAGE, 20])
    read: list[int] = []

    def reading(last_seq: int, text: bytes, first_seq: int) -> Any:
        read.append(last_seq)
        return read_outbox_entry(last_seq, text, first_seq)

    monkeypatch.setattr(module, "read_outbox_entry", reading)
    assert len(await read_outbox(counted, ground.partition.keys.outbox, 1, 35)) == 35
    assert read == [10, 20, 30, 40]
