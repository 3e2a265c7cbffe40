"""Makes operations up and repeats by its key what is doubtful, as the clients of the fault suite do."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

from tests.faults.checker.history import Attempt, Told
from tests.faults.workload import AGAIN, PLAN, Author, Operation, settles
from tests.simulator.deployment import Sidecar

USERS = ("t0.a", "t1.b", "t1.c", "t2.d", "t2.e")
DUPLICATED = 0.1
WITHOUT_KEY = 30
"""Of about 130 operations: nothing but the sidecar's own batch numbers keeps these from being done twice."""


def now_ms() -> int:
    """The time, in milliseconds."""
    return time.time_ns() // 1_000_000


class Client:
    """Makes operations up, repeats what is doubtful, notes what it was told."""

    def __init__(self, seed: int, sidecars: Sequence[Sidecar], told: dict[str, Told]) -> None:
        """`told` is where it notes what it did and was told."""
        self._lot = random.Random(f"client-{seed}")
        self._sidecars, self._told = sidecars, told
        self._author = Author(f"{seed}", f"{seed}", USERS, without_key=WITHOUT_KEY)

    async def makes_the_plan(self) -> bool:
        """Whether it is made."""
        body = {"name": "Daily", "plan_id": PLAN, "credit_limit": 25, "price": "1", "billing_period": "daily"}
        status, _ = await self._sidecars[0].call(Operation("plan", "plan", "", "/credits/plans", body, ""))
        return status in (200, 201, 409)

    async def gives_to_begin_with(self) -> None:
        """Something to spend, but not for everybody."""
        for user in USERS[1:]:
            name = f"first-{user}"
            body = {"user_id": user, "amount": 30}
            await self._until_known(Operation(name, "add", user, "/credits/add", body, name))

    async def work(self, left: Iterator[int]) -> None:
        """As long as there are operations left."""
        for _ in left:
            operation = self._author.next()
            attempts: list[Coroutine[Any, Any, object]] = [self._until_known(operation)]
            if operation.key and self._lot.random() < DUPLICATED:
                attempts.append(self._attempt(operation, AGAIN))
            await asyncio.gather(*attempts)
            await asyncio.sleep(self._lot.uniform(0, 0.3))

    async def ask_again(self) -> None:
        """Every doubtful call, until it is known."""
        for told in list(self._told.values()):
            while told.key and not told.last.is_known:
                operation = Operation(told.id, told.kind, told.user, told.path, told.body, told.key, told.method)
                await self._attempt(operation, 1_000 + len(told.attempts))
                await asyncio.sleep(0.2)

    async def _until_known(self, operation: Operation) -> None:
        number = 1
        while not await self._attempt(operation, number) and operation.key:
            await asyncio.sleep(0.2)
            number += 1
            number += number == AGAIN

    async def _attempt(self, operation: Operation, number: int) -> bool:
        """Whether the answer settles it."""
        names = (operation.id, operation.kind, operation.user, operation.path, operation.body, operation.key)
        told = self._told.setdefault(operation.id, Told(*names, method=operation.method))
        attempt = told.attempts[number] = Attempt(now_ms())
        status, text = await self._lot.choice(self._sidecars).call(operation)
        attempt.ended_ms, attempt.status, attempt.text = now_ms(), status, text
        if not settles(operation.kind, status, text):
            return False
        if status in (200, 201) and number != AGAIN:
            self._author.mind.learn(operation, json.loads(text))
        return True
