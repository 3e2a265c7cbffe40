"""A partition that lost something is closed by the first batch: lua/state/history.lua and lua/state/refusal.lua."""

from __future__ import annotations

import pytest

from meter.engine.history import Place
from meter.engine.operations import Operation, balance, configure, deduct, grant, reserve
from meter.engine.upkeep import clock, rotate, state
from tests.partition import DAY, HOUR, T0, Partition, dump

NAMES = (
    *("accounts", "grants", "order", "holds", "agenda", "due", "recent:a", "recent:b", "outbox", "profiles", "rates"),
    "keys",
)

FIRST = {
    "a read": balance("u"),
    "a charge": deduct("u", 1),
    "a probe": deduct("nobody", 0),
    "credits": grant("new", "g", 5),
    "the clock": clock(),
    "the rotation": rotate(),
}


@pytest.fixture
def stocked(partition: Partition) -> Partition:
    """Something in every key."""
    partition.batch(
        grant("u", "g", 50, expires_at_ms=T0 + DAY),
        grant("u", "h", 50, expires_at_ms=T0 + 2 * DAY),
        reserve("u", "r", 5, HOUR, chosen=True),
        configure("u", metadata='{"a":1}'),
        deduct("u", 1),
    )
    return partition


# A key that is gone


@pytest.mark.parametrize("name", NAMES)
def test_the_first_batch_misses_each_key(stocked: Partition, name: str, unchecked: None) -> None:
    """U1: what was evicted or deleted is never read as zero, and nothing is written but that the partition is lost."""
    stocked.client.delete(f"{stocked.keys.prefix}:{name}")
    before = dump(stocked.client)

    assert stocked.send("sender", 1, balance("u")) == f"refused lost missing {name}"

    after = dump(stocked.client)
    meta = after.pop(stocked.keys.meta)
    assert (meta.pop(b"state"), meta.pop(b"why")) == (b"lost", f"missing {name}".encode())
    assert meta == {key: text for key, text in before.pop(stocked.keys.meta).items() if key != b"state"}
    assert after == before


@pytest.mark.parametrize("name", NAMES)
def test_a_key_that_held_nothing_is_missed_too(partition: Partition, name: str, unchecked: None) -> None:
    """U1: empty and lost are told apart by the sentinel."""
    partition.client.delete(f"{partition.keys.prefix}:{name}")

    assert partition.send("sender", 1, balance("u")) == f"refused lost missing {name}"


@pytest.mark.parametrize("one", FIRST.values(), ids=FIRST)
def test_whatever_the_first_batch_asks(stocked: Partition, one: Operation, unchecked: None) -> None:
    stocked.client.delete(stocked.keys.accounts, stocked.keys.holds)

    assert stocked.send("sender", 1, one) == "refused lost missing accounts holds"


def test_a_partition_stays_closed_when_the_key_comes_back(stocked: Partition) -> None:
    """Another history of that key is no remedy."""
    stocked.client.rename(stocked.keys.accounts, "elsewhere")
    stocked.send("sender", 1, balance("u"))
    stocked.client.rename("elsewhere", stocked.keys.accounts)

    assert stocked.send("sender", 2, balance("u")) == "refused lost missing accounts"
    stocked.batch(state("open"), mode="repair")
    assert stocked.run(balance("u")).balances == (94, 5, 0)


def test_nothing_is_missed_when_all_was_used_up(partition: Partition) -> None:
    """Every key has been in use and is empty again, but for its sentinel."""
    partition.run(grant("u", "g", 5, expires_at_ms=T0 + DAY))
    partition.run(reserve("u", "r", 5, HOUR, chosen=True))
    partition.freeze(T0 + 5 * DAY)
    partition.batch(balance("u"), rotate())
    partition.freeze(T0 + 9 * DAY)
    partition.batch(balance("u"), rotate())
    assert partition.fields("holds") == partition.fields("grants") == partition.fields("recent:a") == {}
    assert partition.members("order") == partition.members("agenda") == []

    assert partition.run(balance("u")).balances == (0, 0, 0)


# A history that is behind


def told(partition: Partition, change: Place) -> Place:
    """What the partition last told, changed by so much; "" leaves the head."""
    epoch, seq, head = partition.told
    return epoch + change[0], seq + change[1], change[2] or head


def test_a_reply_tells_the_last_transaction(stocked: Partition) -> None:
    assert stocked.told == (1, 5, stocked.entries()[-1].transaction_id)
    stocked.run(balance("u"))
    assert stocked.told == (1, 5, stocked.entries()[-1].transaction_id)
    stocked.batch(deduct("u", 1), deduct("u", 10_000), mode="atomic")
    assert stocked.told == (1, 5, stocked.entries()[-1].transaction_id), "what was undone is not told"
    many = (deduct("u", 1), deduct("u", 1))
    stocked.send("sender", 1, *many)
    stocked.run(deduct("u", 1))
    assert stocked.send("sender", 1, *many).startswith("stored\n")
    assert stocked.told == (1, 8, stocked.entries()[-1].transaction_id), "of now, not of then"


@pytest.mark.parametrize(
    "change", [(0, 1, ""), (0, 20, ""), (0, 0, "0-5-other-1"), (1, -5, ""), (1, 0, ""), (2, 9, "x")]
)
@pytest.mark.parametrize("one", FIRST.values(), ids=FIRST)
def test_a_redis_that_is_behind_is_refused_by_the_first_batch(
    stocked: Partition, change: Place, one: Operation
) -> None:
    """X3: an older append-only file, a stale replica: decided before anything is written, and closed for everybody."""
    known = told(stocked, change)
    before = dump(stocked.client)

    reply = stocked.send("sender", 1, one, known=known)

    epoch, seq, head = known
    why = f"lost behind {epoch} {seq} {head}, at 1 5 {stocked.told[2]}"
    assert reply == f"refused {why}"
    assert stocked.send("other", 1, balance("u")) == f"refused {why}"
    after = dump(stocked.client)
    assert {key: value for key, value in after.items() if key != stocked.keys.meta} == {
        key: value for key, value in before.items() if key != stocked.keys.meta
    }


@pytest.mark.parametrize("change", [(0, 0, ""), (0, 0, "?"), (0, -2, "third"), (-1, 20, "x"), (-1, 0, "x")])
def test_who_knows_less_or_the_same_is_served(stocked: Partition, change: Place) -> None:
    """X3: another process is ahead, the last reply was lost, the last entry is unread, a rebuild has begun an epoch."""
    third = stocked.entries()[2].transaction_id
    known = told(stocked, (change[0], change[1], third if change[2] == "third" else change[2]))

    assert stocked.send("sender", 1, deduct("u", 1), known=known).startswith("done\n")


def test_nothing_is_known_at_first(stocked: Partition) -> None:
    assert stocked.send("sender", 1, balance("u"), known=(0, 0, "-")).startswith("done\n")


@pytest.mark.parametrize("looks", [True, False])
def test_a_history_that_others_went_on_from_is_found_by_looking(stocked: Partition, looks: bool) -> None:
    """X3: a process that knew nothing has booked on the older history, and it is longer now than what was told."""
    known = (1, 3, "0-3-lost-7")

    reply = stocked.send("sender", 1, balance("u"), known=known, looks=looks)

    assert reply.startswith("refused lost behind 1 3 0-3-lost-7" if looks else "done\n")


def test_what_was_trimmed_is_no_loss(stocked: Partition) -> None:
    known = (1, 1, stocked.entries()[0].transaction_id)
    stocked.client.hset(stocked.keys.meta, "flushed", 3)
    stocked.client.xtrim(stocked.keys.outbox, minid="4-0", approximate=False)

    assert stocked.send("sender", 1, balance("u"), known=known).startswith("done\n")


def test_the_highest_seq_that_anybody_was_told_is_kept_for_the_report(stocked: Partition) -> None:
    for seq in (9, 30, 12):
        assert stocked.send(f"sender-{seq}", 1, balance("u"), known=(1, seq, "x")).startswith(
            "refused lost behind 1 9 x"
        )

    assert stocked.client.hget(stocked.keys.meta, "acknowledged") == b"30"


def test_a_rebuild_ends_the_comparison(stocked: Partition) -> None:
    """X3: its epoch counts anew, whatever was told of the one before."""
    known = told(stocked, (0, 20, ""))
    assert stocked.send("sender", 1, balance("u"), known=known).startswith("refused lost")
    assert stocked.open(how="rebuild", watermark=(2, 0, "-")) == "opened"
    assert stocked.send("sender", 2, balance("u"), known=known) == "refused rebuilding"
    stocked.batch(state("clear", 2), mode="repair")
    stocked.batch(state("open", 2), mode="repair")

    assert stocked.send("sender", 3, balance("u"), known=known).startswith("done\n")
    assert stocked.client.hmget(stocked.keys.meta, "why", "acknowledged") == [None, None]


def test_a_repair_is_not_compared(stocked: Partition) -> None:
    stocked.client.delete(stocked.keys.profiles)

    assert stocked.send("x", 1, balance("u"), mode="repair", known=(9, 9, "x")).startswith("done\n")
    stocked.open(how="rebuild", watermark=(2, *stocked.told[1:]))
    stocked.batch(state("open", 2), mode="repair")
