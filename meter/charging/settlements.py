"""The end of holds: committed or released in tasks of their own, so that no client that leaves and no request that is
cancelled takes the settlement along.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from logging import getLogger
from typing import Literal, TypeVar

from meter.charging.amounts import is_whole, plain, rounded_up
from meter.charging.policy import Verdict
from meter.client.credits import Credits
from meter.contract.answers import Committed, Refusal, Released
from meter.errors import Unavailable
from meter.usage import Number

RETRY_SECONDS_MAX = 60.0
"""How long a settlement that was not decided is tried again. Afterwards the hold ends by itself, uncharged."""
RETRY_PAUSE_SECONDS = 0.1
RETRY_PAUSE_SECONDS_MAX = 5.0
UNDO_PAUSES_SECONDS = (0.5, 2.0, 5.0)
"""Between the tries to release a hold that may not have been made yet."""
UNDO_MAX = 1000
"""Undone at once, so that an outage of Redis is not answered with a second load; the others end by themselves."""
DRAIN_SECONDS = 10.0
NOT_VALID = 422
PLACES_MAX = 9
"""More decimal places than any meter counts; how many ours does, the first amounts find out."""

Settled = Committed | Released | Refusal | None
"""How a hold ended; None when nobody could say."""

_T = TypeVar("_T")
_log = getLogger("meter.charging")


class Settlements:
    """Settles holds of one event loop. `drain` it before the meter is closed."""

    def __init__(self, credits_: Credits) -> None:
        self._credits = credits_
        self._tasks: set[asyncio.Task[object]] = set()
        self._undoing = 0
        self._draining = asyncio.Event()
        self._places = PLACES_MAX

    def spawn(self, work: Coroutine[None, None, _T]) -> asyncio.Task[_T]:
        """Runs work that must not be lost: nobody else needs to keep the task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drain(self, seconds: float = DRAIN_SECONDS) -> None:
        """Waits for what is under way, but no longer than that. Nothing is settled afterwards."""
        self._draining.set()
        tasks = set(self._tasks)
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=seconds)
        if late:
            _log.error(
                "%d settlements were still undecided after %g s; their holds end by themselves", len(late), seconds
            )

    def settle(self, reservation_id: str, verdict: Verdict, over: Literal["cap", "overdraft"]) -> asyncio.Task[Settled]:
        """Ends a hold. The task never raises; it goes on trying while the meter is away."""
        return self.spawn(self._settle(reservation_id, verdict, over))

    def undo(self, reservation_id: str) -> None:
        """Releases a hold that was asked for and may have been made, or may be made in a moment."""
        if self._undoing < UNDO_MAX:
            self._undoing += 1
            self.spawn(self._undo(reservation_id))

    async def _settle(self, reservation_id: str, verdict: Verdict, over: Literal["cap", "overdraft"]) -> Settled:
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + RETRY_SECONDS_MAX, RETRY_PAUSE_SECONDS
        while True:
            try:
                return await self._attempt(reservation_id, verdict, over)
            except Unavailable as error:
                if loop.time() + pause > deadline:
                    _log.error("reservation %s was not settled (%s): %s", reservation_id, _words(verdict), error)
                    return None
            except Exception:
                _log.exception("reservation %s was not settled (%s)", reservation_id, _words(verdict))
                return None
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_PAUSE_SECONDS_MAX)

    async def _attempt(self, reservation_id: str, verdict: Verdict, over: Literal["cap", "overdraft"]) -> Settled:
        if not verdict.charge:
            answer: Committed | Released | Refusal = await self._credits.release(reservation_id)
        else:
            answer = await self._commit(reservation_id, verdict.amount, over)
        if isinstance(answer, Refusal):
            _log.error("reservation %s was not settled (%s): %s", reservation_id, _words(verdict), answer.detail)
        return answer

    async def _commit(
        self, reservation_id: str, amount: Number | None, over: Literal["cap", "overdraft"]
    ) -> Committed | Refusal:
        """Charges the amount, rounded up to what the meter counts; all that is held if it is more than that."""
        if amount is None:
            return await self._credits.commit(reservation_id, over=over)
        whole = is_whole(amount)
        for places in [0] if whole else range(self._places, -1, -1):
            answer = await self._credits.commit(reservation_id, plain(rounded_up(amount, places)), over=over)
            if not _is_no_amount(answer):
                self._places = self._places if whole else places
                return answer
        _log.error(
            "reservation %s: a usage of %s cannot be counted; all that is held is charged", reservation_id, amount
        )
        return await self._credits.commit(reservation_id, over=over)

    async def _undo(self, reservation_id: str) -> None:
        try:
            for pause in (*UNDO_PAUSES_SECONDS, 0.0):
                with contextlib.suppress(Unavailable):
                    if await self._credits.release(reservation_id):
                        return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._draining.wait(), pause)
                    return  # the process ends; so will the hold
        finally:
            self._undoing -= 1


def _is_no_amount(answer: Committed | Refusal) -> bool:
    return isinstance(answer, Refusal) and answer.status == NOT_VALID


def _words(verdict: Verdict) -> str:
    if not verdict.charge:
        return "to be released"
    return "all of it to be charged" if verdict.amount is None else f"{verdict.amount} to be charged"
