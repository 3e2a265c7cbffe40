"""A transaction of a kind that only a newer version knows: shown, kept and named, never the end of a history."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from meter.amount import AmountScale
from meter.api.rendering import Renderer
from meter.contract.answers import Transaction
from meter.engine import operations
from meter.engine.outbox import Entry, Kind, NewerEntry, Unread, read_outbox_entry
from meter.ledger.history import Filter, History
from meter.ledger.tail import Tail
from tests.ledger.ground import Ground
from tests.ledger.test_flusher import poison
from tests.ledger.test_rebuild import rebuilt


async def pages(ground: Ground) -> list[str]:
    rows = await History(Tail(ground.engine, ground.gateway, ground.store), ground.store).page("u", Filter(), 10)
    return [row.kind for row in rows]


def moving_nothing(ground: Ground, kind: str = "note") -> None:
    """A grant, an entry of a strange kind that moves nothing, and a deduct."""
    ground.run(operations.grant("u", "g", 100))
    ground.run(operations.configure("u", overdraft_limit=0))
    poison(ground, 2, kind=kind)
    ground.run(operations.deduct("u", 10))


@pytest.mark.usefixtures("unchecked")
async def test_a_history_shows_it_as_it_is_before_and_after_the_flush(ground: Ground) -> None:
    moving_nothing(ground)
    assert await pages(ground) == ["deduct", "note", "grant"]
    await ground.drain()
    assert await pages(ground) == ["deduct", "note", "grant"]
    assert (await ground.store.accounts(["u"]))["u"].available == 90


@pytest.mark.usefixtures("unchecked")
async def test_a_python_client_reads_it(ground: Ground) -> None:
    moving_nothing(ground)
    rows = await History(Tail(ground.engine, ground.gateway, ground.store), ground.store).page("u", Filter(), 10)
    items = [Transaction.model_validate_json(Renderer(AmountScale(6)).transaction(row)) for row in rows]
    assert [item.kind for item in items] == ["deduct", "note", "grant"]


async def test_what_moves_credits_waits_for_the_upgrade_of_the_worker(ground: Ground) -> None:
    """What comes before it is booked; the partition stays open, and nothing is guessed or put aside."""
    ground.run(operations.grant("u", "g", 100))
    ground.run(operations.deduct("u", 10))
    ground.run(operations.deduct("u", 1))
    whole = poison(ground, 2, kind="transfer")
    flusher = ground.flusher()
    assert await flusher.step() == 1
    for _ in range(2):
        with pytest.raises(NewerEntry, match="outbox entry 2 is of the kind transfer: upgrade this worker"):
            await flusher.step()
    assert ground.client.hget(ground.partition.keys.meta, "state") == b"open"
    poison(ground, 2, whole.replace(b"transfer", b"deduct"))
    await ground.drain()
    await ground.check()


async def test_a_rebuild_says_that_it_could_not_apply_it_again(live: Ground) -> None:
    moving_nothing(live)
    report = await rebuilt(live)
    assert [line.split(": ")[1] for line in report.lost] == ["only a newer version knows what it did"]
    assert " note u 0" in report.lost[0]
    assert live.run(operations.balance("u")).balances == (90, 0, 0)
    await live.drain()
    await live.check()


@pytest.mark.parametrize("kind", ["", 'a"b', "A", "x" * 33, 7, None, []])
async def test_what_is_no_word_is_no_kind(kind: Any) -> None:
    (found,) = read_outbox_entry(1, _entry_of(kind), 1)
    assert isinstance(found, Unread)


def test_a_known_kind_is_a_member() -> None:
    (found,) = read_outbox_entry(1, _entry_of("void"), 1)
    assert isinstance(found, Entry) and found.kind is Kind.VOID


def _entry_of(kind: object) -> bytes:
    return b'[2,1,1,"-",0,"x",1,1]\n' + orjson.dumps([kind, "u", 0, 0, 0, 0, []])
