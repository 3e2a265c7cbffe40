"""Verdicts carried out by the calls of `Credits`, in this process or over HTTP."""

from __future__ import annotations

from functools import partial

from meter.charging.amounts import is_whole, plain, rounded_up
from meter.charging.policy import Over, Verdict
from meter.charging.priced import WireUsage
from meter.charging.settlements import BackgroundSettlements
from meter.client.credits import Credits
from meter.contract.answers import Committed, Refusal, Released
from meter.errors import Unavailable
from meter.log import logger
from meter.usage import Number

UNDO_PAUSES_SECONDS = (0.5, 2.0, 5.0)
"""Between the tries to release a hold that may not have been made yet."""
UNDO_MAX = 1000
"""Undone at once, so that an outage of Redis is not answered with a second load; the others end by themselves."""
NOT_VALID = 422
NOT_COVERED = 402
SETTLED = 409
PLACES_MAX = 9
"""More decimal places than any meter counts; how many ours does, the first amounts find out."""

Settled = Committed | Released | Refusal
"""How a hold ended."""

_log = logger("meter.charging")


class VerdictRunner:
    """Ends holds by verdict. `run` raises `Unavailable` while the meter cannot decide, and may then be repeated."""

    def __init__(self, credits_: Credits, over: Over) -> None:
        self._credits = credits_
        self._over: Over = over
        self._places = PLACES_MAX
        self._undoing = 0

    async def run(self, reservation_id: str, verdict: Verdict) -> Settled:
        """Commits or releases. A refusal is logged: there is nobody left to be told."""
        answer: Settled
        if not verdict.charge:
            answer = await self._credits.release(reservation_id)
        elif verdict.usage is not None:
            answer = await self._commit_usage(reservation_id, verdict.usage)
        else:
            answer = await self._commit(reservation_id, verdict.amount)
        if isinstance(answer, Refusal):
            _log.error("%s was not settled: %s", words(reservation_id, verdict), answer.detail)
        return answer

    def undo(self, reservation_id: str, background: BackgroundSettlements) -> None:
        """Releases a hold that was asked for and may have been made, or may be made in a moment."""
        if self._undoing < UNDO_MAX:
            self._undoing += 1
            background.spawn(self._undo(reservation_id, background))

    async def _undo(self, reservation_id: str, background: BackgroundSettlements) -> None:
        try:
            for pause in (*UNDO_PAUSES_SECONDS, 0.0):
                try:
                    if await self._credits.release(reservation_id):
                        return
                except Unavailable:
                    pass
                if await background.pause(pause):
                    return  # the process ends; so will the hold
        finally:
            self._undoing -= 1

    async def _commit_usage(self, reservation_id: str, usage: WireUsage) -> Committed | Refusal:
        """Charges what a usage costs; all that is held where that is less, or where its card has no price for it."""
        answer = await self._credits.commit(reservation_id, usage=usage, over=self._over)
        if isinstance(answer, Refusal):
            if answer.status == NOT_VALID:
                _log.error(
                    "a usage has no price, all that is held is charged",
                    reservation_id=reservation_id,
                    usage=usage,
                    why=answer.detail,
                )
            return await self._credits.commit(reservation_id, over=self._over)
        return answer

    async def _commit(self, reservation_id: str, amount: Number | None) -> Committed | Refusal:
        """Charges the amount, rounded up to what the meter counts; all that is held if it is more than that."""
        commit = partial(self._credits.commit, reservation_id, over=self._over)
        if amount is None:
            return await commit()
        whole = is_whole(amount)
        for places in [0] if whole else range(self._places, -1, -1):
            answer = await commit(plain(rounded_up(amount, places)))
            if isinstance(answer, Refusal) and answer.status in (NOT_COVERED, SETTLED):
                # More than is held, and no more is to be charged; or that was done, and its answer got lost.
                return await commit()
            if not _is_no_amount(answer):
                self._places = self._places if whole else places
                return answer
        _log.error(
            "reservation %s: a usage of %s cannot be counted; all that is held is charged", reservation_id, amount
        )
        return await commit()


def words(reservation_id: str, verdict: Verdict) -> str:
    """A settlement, for the log."""
    if not verdict.charge:
        return f"reservation {reservation_id} (to be released)"
    amount = "all of it" if verdict.amount is None else str(verdict.amount)
    if verdict.usage is not None:
        amount = "what it used"
    return f"reservation {reservation_id} ({amount} to be charged)"


def _is_no_amount(answer: Committed | Refusal) -> bool:
    return isinstance(answer, Refusal) and answer.status == NOT_VALID
