"""Work in the background, charged once: when its usage is first seen, to whoever started it.

The answer that starts it tells its id and no usage. Then a hold named by that id takes the place of the request's own.
Whoever reads the work later, and however often, settles that hold by what is told as used; a hold that ended before is
charged by a deduct with the same name as its idempotency key. So nothing is kept here, and a restart loses nothing.
Work that nobody ever reads through us is never told: its hold ends and gives back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b

from meter.charging.admission import Headers
from meter.charging.amounts import plain
from meter.charging.policy import Ending, Verdict
from meter.charging.priced import NO_MODEL, WireUsage, usage_told, wire_usage
from meter.charging.settlements import BackgroundSettlements
from meter.charging.verdicts import Settled, VerdictRunner
from meter.client.credits import Credits
from meter.contract.answers import Deducted, Price, Refusal, Reservation, Reserved
from meter.log import logger
from meter.usage import Number, Reader, Shape, Usage, coding_of, open_reader
from meter.usage.work import OPEN

FOUND = 200
"""The only status whose body is the whole of what was asked for."""

_log = logger("meter.charging")


class BackgroundWork:
    """Begins and ends the holds of work. Its methods raise `Unavailable` and may be repeated."""

    def __init__(self, credits_: Credits, runner: VerdictRunner, ttl_seconds: float) -> None:
        self._credits = credits_
        self._runner = runner
        self._ttl_seconds = ttl_seconds

    async def begin(self, user_id: str, work_id: str, hold: Reserved | Reservation) -> Settled:
        """The work's hold in place of the request's."""
        begun = await self._anchor(user_id, work_id, hold.price)
        released = await self._credits.release(hold.reservation_id)
        if isinstance(begun, Refusal):
            _log.error("background work %s has no hold and will not be charged: %s", work_id, begun.detail)
        else:
            # What does not fit any more is not held, and charged all the same.
            await self._credits.extend(
                begun.reservation_id,
                ttl_seconds=self._ttl_seconds,
                add_amount=str(hold.amount),
                idempotency_key=begun.reservation_id,
            )
        return released

    async def end(self, user_id: str, work_id: str, usages: Sequence[Usage]) -> Settled | Deducted | None:
        """Charges what was used, by model; nothing: the work failed, and its hold is given back. None where nothing is
        to be done: it was charged before, or nobody started it here.
        """
        found = await self._open(user_id, work_id)
        if found is None:
            return None
        if found.price is None:
            amount = sum(usage.total for usage in usages) if usages else None
            if found.state == "open":
                return await self._runner.run(found.reservation_id, Verdict(charge=bool(usages), amount=amount))
            return None if amount is None else await self._late(found, amount, None, "")
        told = [usage_told(usage, found.price) for usage in usages]
        for number, usage in enumerate(told[1:], 1):
            await self._late(found, None, usage, f".{number}")
        first = told[0] if told else None
        if found.state == "open":
            return await self._runner.run(found.reservation_id, Verdict(charge=first is not None, usage=first))
        return None if first is None else await self._late(found, None, first, "")

    async def _late(
        self, found: Reservation, amount: Number | None, usage: WireUsage | None, suffix: str
    ) -> Deducted | Refusal:
        """A charge of its own, for what has no hold any more, or is beside it: made once, by the hold's name."""
        answer = await self._credits.deduct(
            found.user_id,
            None if amount is None else plain(amount),
            usage=usage,
            shortfall="partial",
            idempotency_key=f"{found.reservation_id}{suffix}",
        )
        if isinstance(answer, Refusal):
            _log.error("background work was not charged", reservation_id=found.reservation_id, why=answer.detail)
        return answer

    async def follow(self, user_id: str, work_id: str, file_id: str) -> None:
        """The results stand in a file: where the work does not tell its usage, they are charged when that is read."""
        found = await self._open(user_id, work_id)
        if found is not None:
            await self.begin(found.user_id, file_id, found)

    async def _anchor(self, user_id: str, work_id: str, price: Price | None) -> Reserved | Refusal:
        """A hold of nothing, to be priced by what prices now. Where another user's work has the same id, it is named by
        both.
        """
        hold = partial(self._credits.hold, user_id, 0)
        if price is not None:
            names = [] if price.model in NO_MODEL else [price.model]
            usage = wire_usage(names, {"max_output": 0})
            hold = partial(self._credits.hold, user_id, usage=usage, amount_without_price=0)
        answer: Reserved | Refusal
        for name in _names(user_id, work_id):
            answer = await hold(ttl_seconds=self._ttl_seconds, reservation_id=name)
            if isinstance(answer, Refusal) and "/ttl_seconds" in answer.detail:
                answer = await hold(reservation_id=name)
            if not isinstance(answer, Refusal):
                break
        return answer

    async def _open(self, user_id: str, work_id: str) -> Reservation | None:
        """The hold of the work that is not settled yet, open or ended by itself."""
        for name in _names(user_id, work_id):
            found = await self._credits.reservation(name)
            if not isinstance(found, Refusal) and found.state in ("open", "expired"):
                return found
        return None


class WatchedWork:
    """A request that reads work: free, and what it is told may end the work's hold. Has the methods of a `Charge`."""

    def __init__(
        self,
        work: BackgroundWork,
        settlements: BackgroundSettlements,
        shape: Shape,
        user_id: str,
        work_id: str,
        *,
        lines: bool = False,
    ) -> None:
        """`lines`: what is read are the work's results, one document a line."""
        self._work = work
        self._settlements = settlements
        self._shape = shape
        self._user_id = user_id
        self._work_id = work_id
        self._lines = lines
        self._reader: Reader | None = None

    def respond(self, status: int, headers: Headers) -> None:
        """The response starts. A part of one (206) tells a part of the usage, and is not looked at."""
        if status != FOUND:
            return
        self._reader = open_reader(self._shape, content_encoding=coding_of(headers), lines=self._lines)

    def trail(self, trailers: Headers) -> None:
        """Trailers tell nothing of work."""

    def see(self, chunk: bytes) -> None:
        """The next bytes of the response, as they travel. Never raises."""
        if self._reader is not None:
            self._reader.feed(chunk)

    def settle(self, ending: Ending) -> asyncio.Task[Settled | Deducted | None] | None:
        """Ends the work's hold, if a whole answer told that it can be."""
        reader, self._reader = self._reader, None
        if reader is None:
            return None
        reader.finish()
        usages = reader.usages
        told = any(usage.total for usage in usages)
        work = reader.work
        is_whole = ending is Ending.CLEAN if self._lines else work.status not in OPEN
        if (told and is_whole) or (not usages and work.failed):
            end = partial(self._work.end, self._user_id, self._work_id, usages)
            return self._settlements.settle(end, f"background work {self._work_id}")
        if work.output_file_id and not usages:
            follow = partial(self._work.follow, self._user_id, self._work_id, work.output_file_id)
            self._settlements.settle(follow, f"background work {self._work_id}")
        return None


def _names(user_id: str, work_id: str) -> list[str]:
    texts = (work_id, f"{work_id} {user_id}")
    return [f"w_{blake2b(text.encode('utf-8', 'replace'), digest_size=16).hexdigest()}" for text in texts]
