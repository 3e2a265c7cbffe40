"""Takes back what was done for a gateway that was refused, or has gone: refused means not charged (docs/gateways.md).

A hold is withdrawn and a charge is refunded, tried until Redis has decided. Nothing remembers either, so that the same
request may ask anew; within this process it waits until what came before it is known. When the process is killed in
between, a hold ends by itself and is released (it is charged at its end only once its caller was told of it).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from meter.api.services import Services
from meter.charging.settlements import BackgroundSettlements
from meter.engine import operations, upkeep
from meter.engine.answers import KEY, OK, WORD
from meter.engine.behind import fields_of
from meter.engine.operations import Asked, Operation
from meter.engine.outbox import seq_of
from meter.errors import NotBegun, Undecided
from meter.ledger.history import History, charged_rows
from meter.ledger.tail import Tail
from meter.log import logger

ELSEWHERE_SECONDS = 2.0
"""How long another sidecar may be at a charge: longer than it waits for Redis (METER_REDIS_TIMEOUT_MS) and undoes."""
ELSEWHERE_MAX = 1000
"""Charges of others that are remembered, each for its first sight."""

_TRANSACTION = operations.DEDUCT.field("transaction_id")

_log = logger("meter.gateway")


class Withdrawals:
    """Undoes in the background."""

    def __init__(self, services: Services) -> None:
        self._engine = services.engine
        self._history = History(Tail(services.engine, services.redis, services.store), services.store)
        self._background = BackgroundSettlements()
        self._asking: dict[str, deque[Callable[[], None]]] = {}
        self._elsewhere: OrderedDict[str, float] = OrderedDict()

    def enter(self, name: str, ask: Callable[[], None]) -> None:
        """Asks for a request, at once or when what the same request asked before is known; then `leave` is due."""
        waiting = self._asking.get(name)
        if waiting is not None:
            waiting.append(ask)
            return
        if name:
            self._asking[name] = deque()
        ask()

    def leave(self, name: str) -> None:
        """What the request asked is known."""
        waiting = self._asking.get(name)
        if not waiting:
            self._asking.pop(name, None)
        else:
            waiting.popleft()()

    def confirm(self, reservation_id: str) -> None:
        """The caller was told that it has the hold."""
        one = upkeep.confirm(reservation_id)
        self._run(partial(self._engine.run_for_reservation, reservation_id, one), f"reservation {reservation_id}", "")

    def hold(self, reservation_id: str, expires_at_ms: int | None, name: str) -> None:
        """Takes a hold back, unless it was asked for again since."""
        one = upkeep.withdraw(reservation_id, expires_at_ms)
        self._run(partial(self._engine.run_for_reservation, reservation_id, one), f"reservation {reservation_id}", name)

    def find_out(self, undecided: Undecided, name: str, undo: Callable[[Sequence[str] | None], None]) -> None:
        """Takes back what was done, when that is known: `undo` gets the fields of the line, or None."""

        async def heard() -> None:
            found = await undecided.outcome
            if isinstance(found, NotBegun):
                self.leave(name)
            elif not isinstance(found, list):
                undo(None)
            elif found[0].startswith("0 ok "):
                undo(fields_of(found[0]))
            else:
                self.leave(name)

        self._background.spawn(heard())

    def is_settled_elsewhere(self, transaction_id: str) -> bool:
        """Whether the sidecar that made a charge has had the time to take it back."""
        now = asyncio.get_running_loop().time()
        first_seen = self._elsewhere.setdefault(transaction_id, now)
        if len(self._elsewhere) > ELSEWHERE_MAX:
            self._elsewhere.popitem(last=False)
        return now - first_seen >= ELSEWHERE_SECONDS

    def charge(self, user_id: str, transaction_id: str, deduct: Operation, name: str) -> None:
        """Takes a charge back, and makes its key tell so."""
        self._run(partial(self._refund, user_id, transaction_id, deduct), f"charge {transaction_id}", name)

    def unknown_charge(self, user_id: str, deduct: Operation, name: str) -> None:
        """Takes a charge back of which Redis knows nothing any more: asked again under its key, it tells what became of
        it.
        """

        async def attempt() -> None:
            fields = (await self._engine.run(user_id, deduct)).split(" ")
            if fields[WORD] == OK:
                await self._refund(user_id, fields[_TRANSACTION], deduct)

        self._run(attempt, f"charge {deduct[KEY]}", name)

    def give_up(self, user_id: str) -> None:
        """Tells that nobody can say whether a refused request without an id was charged."""
        _log.error("a refused request may have been charged: Redis lost what it did", user_id=user_id)

    async def close(self) -> None:
        """Waits a little for what is under way."""
        await self._background.drain()

    def _run(self, attempt: Callable[[], Awaitable[object]], what: str, name: str) -> None:
        self._background.settle(attempt, what).add_done_callback(lambda _: self.leave(name))

    async def _refund(self, user_id: str, transaction_id: str, deduct: Operation) -> None:
        place = seq_of(transaction_id)
        charge = None if place is None else await self._history.transaction(transaction_id, *place)
        if place is None or charge is None:
            _log.error("a refused charge was not found, and stays", transaction_id=transaction_id, user_id=user_id)
            return
        key = upkeep.withdrawal_key(deduct, transaction_id)
        batch = [
            operations.refund_rows(
                user_id,
                transaction_id,
                None,
                charges=await charged_rows(await self._history.all_of(charge), None),
                path=charge.user_id,
                asked=Asked(key, operations.members("the gateway was not allowed it", None, charge.reference)),
            )
        ]
        mark = upkeep.withdrawn_by(key)
        await self._engine.run_many(place[0], batch if mark is None else [*batch, mark])
