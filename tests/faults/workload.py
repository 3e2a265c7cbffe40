"""A client of the fault suite, a process of its own: random operations of many users at two sidecars, noted before and
after each call, the doubtful ones asked again by their own key until it is known what became of them.

    python -m tests.faults.workload --name 1 --seed 7 --journal history/1.ndjson --sidecars http://...,http://...

SIGTERM: begins nothing more, finds out what is doubtful, ends. Every tenth call is made twice, at both sidecars.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.faults.journal import Journal
from tests.faults.plain_http import PlainHttp

PLAN = "daily"
"""The plan that the run makes before its clients begin."""
DUPLICATED, LEAVES = 0.10, 0.02
PAUSE_SECONDS, PAUSE_SECONDS_MAX = 0.05, 0.5
GIVES_WAY = 10
"""A client is no part of what is tested: it must not keep a process that was killed from starting again."""
AGAIN = 101
"""The number of the attempt that makes a call twice."""
KEPT = 200
"""Charges, holds and grants that a client keeps in mind, to refund, settle or void them later."""


@dataclass(frozen=True)
class Operation:
    """What is to be called, and how it is noted."""

    id: str
    kind: str
    user: str
    path: str
    body: dict[str, Any]
    key: str
    method: str = "POST"


@dataclass
class Mind:
    """What a client remembers of its own calls."""

    charges: list[tuple[str, str, str, int]] = field(default_factory=list)
    """(id, user, transaction_id, amount)."""
    holds: list[tuple[str, str, int]] = field(default_factory=list)
    grants: list[tuple[str, str]] = field(default_factory=list)

    def learn(self, operation: Operation, answer: Mapping[str, Any]) -> None:
        """From an acknowledged call."""
        if operation.kind == "deduct" and operation.key and answer["transaction_id"]:
            self.charges.append((operation.id, operation.user, answer["transaction_id"], operation.body["amount"]))
        elif operation.kind == "reserve":
            self.holds.append((operation.user, operation.body["reservation_id"], operation.body["amount"]))
        elif operation.kind == "add":
            self.grants.append((operation.user, answer["grant_id"]))
        for kept in (self.charges, self.holds, self.grants):
            del kept[:-KEPT]


class Author:
    """Makes up operations, from a seed."""

    def __init__(self, seed: str, prefix: str, users: Sequence[str], *, without_key: float = 6) -> None:
        """`without_key`: how many of about 100 operations have no key."""
        self.lot = random.Random(seed)
        self._prefix, self._users = prefix, users
        self._number = 0
        self.mind = Mind()
        self._makers: dict[Callable[[str, str], Operation], float] = {
            self._deduct: 40,
            self._without_key: without_key,
            self._reserve: 16,
            self._settle: 13,
            self._extend: 3,
            self._add: 9,
            self._batch: 5,
            self._refund: 4,
            self._void: 0.3,
            self._conflict: 2,
            self._subscribe: 0.7,
        }

    def next(self) -> Operation:
        """The next operation."""
        self._number += 1
        (make,) = self.lot.choices(list(self._makers), list(self._makers.values()))
        return make(f"{self._prefix}-{self._number}", self.lot.choice(self._users))

    def _deduct(self, name: str, user: str) -> Operation:
        return Operation(name, "deduct", user, "/credits/deduct", self._spend(user), name)

    def _spend(self, user: str) -> dict[str, Any]:
        body: dict[str, Any] = {"user_id": user, "amount": self.lot.randint(1, 4)}
        return body | ({"shortfall": "partial"} if self.lot.random() < 0.05 else {})

    def _without_key(self, name: str, user: str) -> Operation:
        """Nothing but the sidecar's own batch numbers keeps it from being done twice."""
        body = {"user_id": user, "amount": 1, "reference": name}
        return Operation(name, "deduct", user, "/credits/deduct", body, "")

    def _reserve(self, name: str, user: str) -> Operation:
        return Operation(name, "reserve", user, "/credits/reservations", self._hold(user, f"r-{name}"), name)

    def _hold(self, user: str, hold: str) -> dict[str, Any]:
        ttl_seconds = self.lot.choice((2, 4, 30, 300))
        return {"user_id": user, "amount": self.lot.randint(1, 9), "reservation_id": hold, "ttl_seconds": ttl_seconds}

    def _settle(self, name: str, user: str) -> Operation:
        if not self.mind.holds:
            return self._reserve(name, user)
        user, hold, amount = self.mind.holds.pop(self.lot.randrange(len(self.mind.holds)))
        if self.lot.random() < 0.25:
            return Operation(name, "release", user, f"/credits/reservations/{hold}/release", {}, name)
        body: dict[str, Any] = {"amount": self.lot.randint(0, amount + 2)} if self.lot.random() < 0.8 else {}
        return Operation(name, "commit", user, f"/credits/reservations/{hold}/commit", body, name)

    def _extend(self, name: str, user: str) -> Operation:
        if not self.mind.holds:
            return self._reserve(name, user)
        user, hold, _ = self.lot.choice(self.mind.holds)
        body = {"ttl_seconds": 20, "add_amount": self.lot.randint(0, 2)}
        return Operation(name, "extend", user, f"/credits/reservations/{hold}/extend", body, name)

    def _add(self, name: str, user: str) -> Operation:
        body: dict[str, Any] = {"user_id": user, "amount": self.lot.randint(5, 60)}
        if self.lot.random() < 0.3:
            ends = datetime.now(UTC) + timedelta(seconds=self.lot.uniform(3, 30))
            body["expires_at"] = ends.isoformat(timespec="milliseconds")
        return Operation(name, "add", user, "/credits/add", body, name)

    def _batch(self, name: str, user: str) -> Operation:
        several: list[dict[str, Any]] = []
        for n in range(self.lot.randint(2, 5)):
            if self.lot.random() < 0.7:
                several.append({"op": "deduct", **self._spend(user)})
            else:
                several.append({"op": "reserve", **self._hold(user, f"r-{name}.{n}")})
        body = {"operations": several, "atomic": self.lot.random() < 0.4}
        return Operation(name, "batch", user, "/credits/batch", body, name)

    def _refund(self, name: str, user: str) -> Operation:
        if not self.mind.charges:
            return self._add(name, user)
        _, user, charge, amount = self.lot.choice(self.mind.charges)
        body = {"user_id": user, "transaction_id": charge, "amount": self.lot.randint(1, amount)}
        return Operation(name, "refund", user, "/credits/refund", body, name)

    def _void(self, name: str, user: str) -> Operation:
        if not self.mind.grants:
            return self._add(name, user)
        user, grant = self.mind.grants.pop(self.lot.randrange(len(self.mind.grants)))
        return Operation(name, "void", user, f"/credits/grants/{user}/{grant}/void", {}, name)

    def _conflict(self, name: str, user: str) -> Operation:
        """A key that was acknowledged, with another body."""
        if not self.mind.charges:
            return self._deduct(name, user)
        first, user, _, amount = self.lot.choice(self.mind.charges)
        body = {"user_id": user, "amount": amount + 7, "reference": first}
        return Operation(name, "conflict", user, "/credits/deduct", body, first)

    def _subscribe(self, name: str, user: str) -> Operation:
        return Operation(name, "subscribe", user, f"/credits/subscriptions/{user}", {"plan_id": PLAN}, name, "PUT")


class Client:
    """Calls, notes and asks again."""

    def __init__(self, author: Author, journal: Journal, sidecars: Sequence[str]) -> None:
        self._author, self._journal, self._sidecars = author, journal, sidecars
        self._lot = author.lot
        self._http = PlainHttp()
        self.goes_on = True

    async def run(self, concurrency: int, operations: int, pause_seconds: float) -> None:
        """So many at once, until there were as many operations as wanted (0: until told to stop)."""
        left = operations or 10**12

        async def one() -> None:
            nonlocal left
            while self.goes_on and left > 0:
                left -= 1
                await self.operate(self._author.next())
                await asyncio.sleep(self._lot.uniform(0, 2 * pause_seconds))

        await asyncio.gather(*(one() for _ in range(concurrency)))
        self._http.close()

    async def operate(self, operation: Operation) -> None:
        """One operation, until it is known; every tenth twice."""
        at = self._lot.randrange(len(self._sidecars))
        if operation.key and self._lot.random() < DUPLICATED:
            later = self._lot.choice((0.0, 0.0, 0.2, 1.5))
            await asyncio.gather(self._until_known(operation, at), self._again(operation, at + 1, later))
        else:
            await self._until_known(operation, at)

    async def _again(self, operation: Operation, at: int, later: float) -> None:
        await asyncio.sleep(later)
        await self._attempt(operation, at, AGAIN)

    async def _until_known(self, operation: Operation, at: int) -> None:
        pause, number = PAUSE_SECONDS, 1
        while True:
            answer = await self._attempt(operation, at + number, number, leaves=self._lot.random() < LEAVES)
            if answer is not None or not operation.key:
                return
            await asyncio.sleep(pause)
            pause, number = min(2 * pause, PAUSE_SECONDS_MAX), number + 1
            number += number == AGAIN

    async def _attempt(self, operation: Operation, at: int, number: int, *, leaves: bool = False) -> str | None:
        """The text of an answer that settles it, else None."""
        await note_call(self._journal, operation, number)
        url = self._sidecars[at % len(self._sidecars)]
        status, text = await self._http.call(
            url, operation.method, operation.path, operation.body, operation.key, leaves=leaves
        )
        await self._journal.write(answer=operation.id, attempt=number, status=status, text=text)
        if not settles(operation.kind, status, text):
            return None
        if status in (200, 201) and number != AGAIN:
            self._author.mind.learn(operation, json.loads(text))
        return text


async def note_call(journal: Journal, operation: Operation, number: int) -> None:
    """The line before a call."""
    said = {"kind": operation.kind, "user": operation.user, "path": operation.path, "method": operation.method}
    await journal.write(call=operation.id, attempt=number, **said, body=operation.body, key=operation.key)


def settles(kind: str, status: int, text: str) -> bool:
    """Whether an answer says what became of the operation, of a batch: of each."""
    if not 0 < status < 500 or status == 429:
        return False
    return kind != "batch" or status != 200 or all(item["status"] < 500 for item in json.loads(text)["results"])


async def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--sidecars", required=True)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--operations", type=int, default=0)
    parser.add_argument("--pause-ms", type=int, default=0, help="after an operation, on average")
    given = parser.parse_args()
    users = [f"t{n % 5}.u{n}" for n in range(given.users)]
    author = Author(f"{given.seed}-{given.name}", f"{given.seed}-{given.name}", users)
    client = Client(author, Journal(given.journal), given.sidecars.split(","))

    def stop() -> None:
        client.goes_on = False

    os.nice(GIVES_WAY)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    await client.run(given.concurrency, given.operations, given.pause_ms / 1_000)


if __name__ == "__main__":
    asyncio.run(main())
