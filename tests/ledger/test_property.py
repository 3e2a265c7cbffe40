"""Random operations, flushed at random points in random batches by workers killed at random: store equals Redis."""

from __future__ import annotations

import os
import random
from collections.abc import Collection
from typing import Any

import pytest

from meter import clock
from meter.engine import operations, upkeep
from meter.engine.answers import KEY
from meter.engine.at_end import NOTHING_AT_END, AtEnd
from meter.engine.operations import Asked, Operation
from meter.ledger.flusher import Flusher
from meter.ledger.reconcile import Reconcile
from meter.store.base import Store
from tests.ledger.ground import Ground
from tests.partition import MINUTE, Answer

USERS = ("a", "b", "c/d", "e")
ROUNDS = 120
SEEDS = int(os.environ.get("METER_FLUSH_SEEDS", "6"))


KINDS = ("grant deduct reserve commit " * 2 + "release extend refund void adjust").split()


class Killed(Exception):
    """The worker's process is gone."""


class Mortal:
    """Calls during which the worker may be killed, before or after they have done what they should."""

    def __init__(self, real: Any, lot: random.Random, share: float) -> None:
        self._real = real
        self._lot = lot
        self._share = share

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)

        async def called(*args: object, **named: object) -> object:
            if self._lot.random() < self._share:
                raise Killed
            answer = await real(*args, **named)
            if self._lot.random() < self._share:
                raise Killed
            return answer

        return called


class Traffic:
    """Random operations on a few users, and what was acknowledged of them."""

    def __init__(self, ground: Ground, lot: random.Random, name: str = "", before: Traffic | None = None) -> None:
        """`name` tells its ids from another's; `before` made the reservations and charges that there are already."""
        self._ground = ground
        self._lot = lot
        self._name = name
        self._made = 0
        self._holds: list[str] = [] if before is None else list(before._holds)
        self._charges: list[tuple[str, str]] = [] if before is None else list(before._charges)
        self._keyed: list[tuple[Operation, Answer]] = []
        self.acknowledged: set[str] = set()

    def one(self) -> None:
        self._made += 1
        n, lot, user = self._made, self._lot, self._lot.choice(USERS)
        asked = Asked(f"{self._name}key-{n}") if lot.random() < 0.5 else Asked()
        kind = lot.choice(KINDS)
        hold = lot.choice(self._holds) if self._holds else "none"
        match kind:
            case "grant":
                one = self._grant(user, f"{self._name}g{n}", asked)
            case "deduct":
                one = operations.deduct(user, lot.randrange(90), lot.choice(["reject", "partial", "overdraft"]), asked)
            case "reserve":
                at_end = lot.choice(["release", "release", "charge"])
                one = operations.reserve(
                    user,
                    f"{self._name}h{n}",
                    lot.randrange(60),
                    lot.randrange(1, 6 * MINUTE),
                    chosen=True,
                    at_end=at_end,
                    asked=asked,
                )
                self._holds.append(f"{self._name}h{n}")
            case "commit":
                one = operations.commit(
                    hold, lot.choice([None, lot.randrange(90)]), lot.choice(["cap", "overdraft", "hold_only"]), asked
                )
            case "release":
                one = operations.release(hold, asked)
            case "extend":
                one = operations.extend(hold, lot.choice([None, MINUTE]), lot.randrange(20), asked)
            case "adjust":
                named = lot.choice(["", f"{self._name}g{lot.randrange(1, n + 1)}"])
                one = operations.adjust(user, named, lot.randrange(1, 40), asked)
            case "void":
                one = operations.void(user, f"{self._name}g{lot.randrange(1, n + 1)}", asked)
            case _:
                if not self._charges:
                    return
                user, charge = lot.choice(self._charges)
                entry = next((e for e in self._ground.partition.entries() if e.transaction_id == charge), None)
                if entry is None:
                    return
                self.hear(self._ground.partition.refund(user, charge, lot.choice([None, 1])))
                return
        answer = self._ground.partition.run(one)
        self.hear(answer)
        if answer.status == "ok" and asked.key:
            self._keyed.append((one, answer))
        if answer.status == "ok" and kind in ("deduct", "commit") and answer["transaction_id"] != "-":
            self._charges.append((answer["user_id"], answer["transaction_id"]))
        if self._keyed and lot.random() < 0.1:
            one, first = lot.choice(self._keyed)
            assert self._ground.partition.run(one).line == "1" + first.line[1:]

    def _grant(self, user: str, name: str, asked: Asked) -> Operation:
        at, lot = self._now(), self._lot
        starts = lot.choice([0, 0, 0, at + lot.randrange(1, 5 * MINUTE)])
        ends = lot.choice([clock.NEVER_MS, max(at, starts) + lot.randrange(1, 9 * MINUTE)])
        rollover = (lot.randrange(60), lot.randrange(1, 4 * MINUTE))
        at_end = AtEnd(*(rollover if rollover else (None, 0)), "g", renews=lot.random() < 0.5)
        return operations.grant(
            user,
            name,
            lot.randrange(1, 200),
            effective_at_ms=starts,
            expires_at_ms=ends,
            at_end=lot.choice([NOTHING_AT_END, at_end]),
            asked=asked,
        )

    def hear(self, answer: Answer) -> None:
        if answer.status == "ok" and not answer.replayed and answer.fields.get("transaction_id", "-") != "-":
            assert answer["transaction_id"] not in self.acknowledged
            self.acknowledged.add(answer["transaction_id"])

    def repeat_all(self, lost: Collection[str] = ()) -> None:
        """Every key answers as it did, but those that are lost, or whose transaction is."""
        for one, first in self._keyed:
            transaction_id = first.fields.get("transaction_id")
            if one[KEY] in lost or transaction_id in lost or transaction_id == "-":  # a probe is not booked
                continue
            assert self._ground.partition.run(one).line == "1" + first.line[1:]

    def _now(self) -> int:
        return int(self._ground.partition.run(upkeep.clock())["now_ms"])


def mortal(ground: Ground, lot: random.Random) -> Flusher:
    store: Any = Mortal(ground.store, lot, 0.04)
    gateway: Any = Mortal(ground.gateway, lot, 0.02)
    return ground.flusher(store, gateway, flush_max=lot.choice([1, 2, 5, 17, 1_000]))


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_the_store_is_what_redis_is(ground: Ground, seed: int) -> None:
    lot = random.Random(seed)
    traffic = Traffic(ground, lot)
    for user in USERS[:2]:
        ground.run(operations.configure(user, overdraft_limit=100))
    workers = [mortal(ground, lot), mortal(ground, lot)]
    kills = 0
    for _ in range(ROUNDS):
        traffic.one()
        if lot.random() < 0.1:
            ground.partition.advance(lot.randrange(2 * MINUTE))
        if lot.random() < 0.5:
            number = lot.randrange(2)
            workers[number]._backlog._noted_at = lot.choice([workers[number]._backlog._noted_at, -1e9])
            try:
                await workers[number].step()
            except Killed:
                kills += 1
                workers[number] = mortal(ground, lot)
    for user in USERS:
        ground.run(operations.balance(user))
    await ground.drain()
    await ground.check()
    rows = await ground.transactions()
    assert traffic.acknowledged <= {row.transaction_id for row in rows}
    report = await Reconcile(ground.engine, ground.gateway, ground.store).partition(0)
    assert (report.drifts, report.unsettled) == ((), ())
    traffic.repeat_all()
    assert await _sums(ground.store)


async def _sums(store: Store) -> bool:
    """Each account's row is what its transactions add up to."""
    for row in await store.scan_accounts(0, "", 100):
        assert row.granted == row.spent + row.expired + row.voided + row.reserved + row.available - row.debt
    return True
