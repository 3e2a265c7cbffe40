"""The batch program: lua/apply.lua. What becomes of a whole batch, senders, all or nothing."""

from __future__ import annotations

import pytest

from meter.engine.operations import (
    Asked,
    Operation,
    balance,
    commit,
    deduct,
    explain,
    grant,
    grants,
    release,
    reservations,
    reserve,
)
from meter.engine.upkeep import clock, expire
from tests.partition import HOUR, MINUTE, T0, Partition, dump

LISTINGS = {
    "explain": explain("u", 1),
    "grants": grants("u", "all", "", 50),
    "reservations": reservations("u", "", 50),
    "clock": clock("set", T0 + 1),
}


@pytest.fixture
def stocked(partition: Partition) -> Partition:
    """u and v have 100 credits each."""
    partition.batch(grant("u", "g", 100), grant("v", "g", 100))
    return partition


def test_operations_apply_in_order(stocked: Partition) -> None:
    answers = stocked.batch(
        deduct("u", 60),
        deduct("u", 50),
        reserve("u", "r", 40, HOUR, chosen=True),
        deduct("u", 1),
        commit("r", 10),
        deduct("u", 30),
        deduct("v", 1),
    )

    assert [answer.status for answer in answers] == ["ok", "insufficient", "ok", "insufficient", "ok", "ok", "ok"]
    assert stocked.run(balance("u")).balances == (0, 0, 0)


def test_a_batch_of_nothing(partition: Partition) -> None:
    assert partition.send("sender", 1) == "done\n"


def test_a_batch_that_is_sent_again_gets_its_stored_answer(stocked: Partition) -> None:
    many = (deduct("u", 10), deduct("v", 500), reserve("u", "r", 5, HOUR, chosen=False))
    first = stocked.send("sender", 1, *many)
    before = dump(stocked.client)

    again = stocked.send("sender", 1, *many)

    assert first.startswith("done\n")
    assert again == "stored" + first.removeprefix("done")
    assert dump(stocked.client) == before


@pytest.mark.parametrize("name", LISTINGS)
@pytest.mark.parametrize("last", [True, False])
def test_a_batch_with_a_listing_is_applied_once_too(stocked: Partition, name: str, last: bool) -> None:
    """Listings write what was decided before them; the sender's answer must not get lost by that."""
    many = (
        (deduct("u", 10), LISTINGS[name]) if last else (LISTINGS[name], deduct("u", 10), LISTINGS[name], balance("u"))
    )
    first = stocked.send("sender", 1, *many)

    again = stocked.send("sender", 1, *many)

    assert again == "stored" + first.removeprefix("done")
    assert stocked.run(balance("u")).balances == (90, 0, 0)


def test_a_probe_with_a_key_before_a_listing_is_answered_the_same(stocked: Partition) -> None:
    many = (deduct("u", 0, asked=Asked("key")), LISTINGS["explain"])
    first = stocked.send("sender", 1, *many)

    assert stocked.send("sender", 1, *many) == "stored" + first.removeprefix("done")


def test_each_lane_has_its_own_numbers(stocked: Partition) -> None:
    one = deduct("u", 10)

    replies = [stocked.send(sender, 1, one).split("\n")[0] for sender in ("a", "b", "a", "b", "c")]

    assert replies == ["done", "done", "stored", "stored", "done"]
    assert stocked.run(balance("u")).balances == (70, 0, 0)


def test_an_older_batch_than_the_last_is_never_applied(stocked: Partition) -> None:
    stocked.send("sender", 2, deduct("u", 10))
    before = dump(stocked.client)

    assert stocked.send("sender", 1, deduct("u", 50)) == "stale"
    assert dump(stocked.client) == before


def test_refusals_and_reads_write_nothing(stocked: Partition) -> None:
    before = dump(stocked.client)

    reply = stocked.send("sender", 1, deduct("u", 101), balance("u"), release("nothing"), expire("u"), clock())

    assert reply.startswith("done\n")
    assert dump(stocked.client) == before


def test_all_or_nothing(stocked: Partition) -> None:
    before = dump(stocked.client)

    answers = stocked.batch(deduct("u", 60), deduct("v", 60), deduct("u", 60), mode="atomic")

    assert [answer.status for answer in answers] == ["ok", "ok", "insufficient"]
    assert dump(stocked.client) == before
    assert stocked.send("sender", 1, deduct("u", 1), release("nothing"), mode="atomic").startswith("undone\n")


def test_a_trial_answers_and_writes_nothing(stocked: Partition) -> None:
    before = dump(stocked.client)

    reply = stocked.send("sender", 1, deduct("u", 60), deduct("u", 60, asked=Asked("a")), mode="trial")

    assert [line.split(" ")[1] for line in reply.split("\n")[1:]] == ["ok", "insufficient"]
    assert reply.startswith("undone\n")
    assert stocked.send("sender", 1, deduct("u", 60), mode="trial").startswith("undone\n0 ok ")
    assert dump(stocked.client) == before


def test_all(stocked: Partition) -> None:
    assert stocked.send("sender", 1, deduct("u", 60), deduct("v", 60), mode="atomic").startswith("done\n")
    assert stocked.run(balance("v")).balances == (40, 0, 0)


def test_an_undone_batch_leaves_its_keys_free(stocked: Partition) -> None:
    stocked.batch(deduct("u", 60, asked=Asked("a")), deduct("u", 60, asked=Asked("b")), mode="atomic")

    answers = stocked.batch(deduct("u", 50, asked=Asked("a")), deduct("u", 50, asked=Asked("b")), mode="atomic")

    assert [(answer.status, answer.replayed) for answer in answers] == [("ok", False), ("ok", False)]


def test_a_replay_is_no_refusal(stocked: Partition) -> None:
    stocked.run(deduct("u", 10, asked=Asked("a")))

    answers = stocked.batch(deduct("u", 10, asked=Asked("a")), deduct("u", 5), mode="atomic")

    assert [answer.replayed for answer in answers] == [True, False]
    assert stocked.run(balance("u")).balances == (85, 0, 0)


def test_what_fell_due_is_not_settled_by_an_undone_batch(stocked: Partition) -> None:
    stocked.run(reserve("u", "r", 10, MINUTE, chosen=True))
    stocked.freeze(T0 + MINUTE)
    before = dump(stocked.client)

    stocked.batch(deduct("u", 100), deduct("u", 1), mode="atomic")

    assert dump(stocked.client) == before


def test_nothing_is_zero_without_meta(stocked: Partition, unchecked: None) -> None:
    stocked.client.delete(stocked.keys.meta)
    before = dump(stocked.client)

    assert stocked.send("sender", 1, balance("u")) == "refused missing meta"
    assert stocked.send("sender", 1, grant("u", "h", 5)) == "refused missing meta"
    assert dump(stocked.client) == before


@pytest.mark.parametrize(
    ("name", "value", "reply"),
    [
        ("schema", "3", "refused schema"),
        ("state", "closed", "refused closed"),
        ("state", "lost", "refused lost"),
    ],
)
def test_a_partition_that_is_not_fit_is_refused(stocked: Partition, name: str, value: str, reply: str) -> None:
    stocked.client.hset(stocked.keys.meta, name, value)
    before = dump(stocked.client)

    assert stocked.send("sender", 1, deduct("u", 1)) == reply
    assert dump(stocked.client) == before


def test_a_large_batch(partition: Partition) -> None:
    """Beyond what one command takes of arguments at a time."""
    many: list[Operation] = [grant(f"u{n}", "g", 10, expires_at_ms=T0 + HOUR) for n in range(500)]
    partition.batch(*many)
    partition.batch(*(reserve(f"u{n}", f"r{n}", 4, HOUR, chosen=True) for n in range(500)))

    answers = partition.batch(*(commit(f"r{n}", 3) for n in range(500)))

    assert {answer.balances for answer in answers} == {(7, 0, 0)}
    assert len(partition.entries()) == 1500


def test_what_comes_too_late_by_redis_clock_is_not_applied(stocked: Partition) -> None:
    """X4: its callers were told by then that it was not done. Redis' own clock counts, though a test clock stands."""
    seconds, microseconds = stocked.client.time()
    now_ms = seconds * 1000 + microseconds // 1000
    before = dump(stocked.client)

    reply = stocked.send("sender", 1, deduct("u", 10), latest_ms=now_ms)

    word, server_ms = reply.split(" ")
    assert word == "late" and int(server_ms) >= now_ms
    assert dump(stocked.client) == before
    applied = stocked.send("sender", 2, deduct("u", 10), latest_ms=now_ms + HOUR)
    assert applied.startswith("done\n0 ok ")
    again = stocked.send("sender", 2, deduct("u", 10), latest_ms=now_ms)
    assert again == "stored" + applied.removeprefix("done"), "it was applied in time"


def test_who_asks_what_became_of_a_batch_is_told_and_it_is_never_applied_after_that(stocked: Partition) -> None:
    """X4: a reply that never came."""
    applied = stocked.send("one", 1, deduct("u", 10))

    assert stocked.send("one", 1, mode="ask") == "stored" + applied.removeprefix("done")
    assert stocked.send("two", 7, mode="ask") == "never"
    assert stocked.send("two", 7, mode="ask") == "stale", "the same, by whoever asks twice"
    assert stocked.send("two", 7, deduct("u", 10)) == "stale"
    assert stocked.run(balance("u")).balances == (90, 0, 0)
