"""Accounts with everything that an account can have, made through the real scripts."""

from __future__ import annotations

from dataclasses import dataclass

from meter.engine import operations
from meter.engine.at_end import AtEnd
from meter.engine.operations import Asked, Operation
from tests.partition import DAY, HOUR, Answer, Partition


@dataclass
class Told:
    """An operation with its key and the line that the script answered."""

    one: Operation
    answer: Answer


def tell(partition: Partition, now_ms: int) -> list[Told]:
    """Every kind of change on three users, each under a key where it can have one; answers what can be asked again."""
    told: list[Told] = []

    def call(one: Operation) -> Answer:
        answer = partition.run(one)
        assert answer.status == "ok", answer
        told.append(Told(one, answer))
        return answer

    def key() -> Asked:
        return Asked(f"key-{len(told)}", f'"description":"call {len(told)}"')

    call(operations.grant("u", "ending", 60, expires_at_ms=now_ms + 2 * DAY, asked=key()))
    call(operations.grant("u", "first", 40, priority=1, asked=key()))
    call(operations.grant("u", "later", 25, effective_at_ms=now_ms + 2 * DAY, asked=key()))
    call(operations.grant("u", "never", 7, effective_at_ms=now_ms + 3 * DAY, asked=key()))
    call(operations.void("u", "never", key()))
    call(operations.grant("u", "void", 9, priority=99, asked=key()))
    call(operations.void("u", "void", key()))
    charge = call(operations.deduct("u", 30, asked=key()))
    call(operations.deduct("u", 1_000, "partial", key()))
    call(operations.grant("u", "more", 500, asked=key()))
    call(operations.grant("u", "brief", 11, priority=60, expires_at_ms=now_ms + 2 * DAY, asked=key()))
    rollover = AtEnd(4, 9 * DAY, "default", renews=True)
    call(operations.grant("u", "rolling", 6, priority=98, expires_at_ms=now_ms + 2 * DAY, at_end=rollover, asked=key()))
    call(operations.reserve("u", "hold", 35, HOUR, chosen=True, asked=key()))
    call(operations.extend("hold", 2 * HOUR, 5, key()))
    call(operations.reserve("u", "ended", 20, HOUR, chosen=True))
    call(operations.commit("ended", 12, asked=key()))
    call(operations.reserve("u", "over", 20, HOUR, chosen=True))
    call(operations.commit("over", 26, asked=key()))
    call(operations.reserve("u", "given", 20, HOUR, chosen=True))
    call(operations.release("given", key()))
    call(operations.reserve("u", f"r0_{'A' * 22}", 3, HOUR, chosen=False, asked=key()))
    call(
        operations.configure("v", overdraft_limit=100, thresholds=(9, 3), metadata='{"name":"V","n":1.5}', asked=key())
    )
    call(operations.deduct("v", 80, "overdraft", key()))
    call(operations.grant("v", "paid", 30, asked=key()))
    call(operations.configure("w", suspended=True, asked=key()))
    draws = tuple((draw.grant_id, draw.amount) for draw in partition.entry_of(charge["transaction_id"]).draws)
    for part in (10, 5):
        call(
            operations.refund(
                "u", charge["transaction_id"], part, charged=charge["taken"], refunded=0, draws=draws, asked=key()
            )
        )
    call(operations.grant("z", "amends", 5, source=operations.ADJUSTMENT, asked=key()))
    call(operations.grant("z", "other", 5, priority=99, asked=key()))
    call(operations.adjust("z", "other", 5, key()))
    call(operations.adjust("z", "", 2, key()))
    return told
