"""The credits of one exchange: held before it, kept while it lasts, settled once at its end."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from functools import partial

from meter.api_key import read_api_key
from meter.charging.admission import Admitted, Headers
from meter.charging.amounts import plain
from meter.charging.asking import Estimate
from meter.charging.background import BackgroundWork, WatchedWork
from meter.charging.policy import ChargePolicy, Ending, Verdict, verdict_on
from meter.charging.priced import ChargeBy, WireUsage, usage_told
from meter.charging.routes import CHARGED, Asked
from meter.charging.settlements import BackgroundSettlements
from meter.charging.verdicts import Settled, VerdictRunner, words
from meter.client.credits import Credits
from meter.contract.answers import Price, Refusal, Reserved
from meter.contract.problems import PROBLEMS
from meter.errors import Unavailable
from meter.log import logger
from meter.usage import Format, Number, Reader, Unread, Usage, coding_of, open_reader
from meter.usage.number import read_number

RENEWALS_PER_TTL = 3

OWNERS_MAX = 20_000
_OF_ANOTHER = Refusal.model_validate_json(
    PROBLEMS["invalid-id"].body("The API key is not that of the user who is named beside it.")
)

_log = logger("meter.charging")


class Charger:
    """Opens charges by one policy."""

    def __init__(self, credits_: Credits, policy: ChargePolicy) -> None:
        self.credits = credits_
        self.policy = policy
        self.settlements = BackgroundSettlements()
        self._runner = VerdictRunner(credits_, policy.over)
        self.work = BackgroundWork(credits_, self._runner, policy.background_ttl_seconds)
        self.unread: Counter[tuple[str, ...]] = Counter()
        """Responses that told no usage, by why and by whose API it was."""
        self._open: set[Charge] = set()
        self._owners: dict[str, str] = {}
        """Paths of API keys, by their hashes."""

    async def open(
        self, admitted: Admitted, asked: Asked = CHARGED, estimate: Estimate | None = None
    ) -> Charge | Refusal:
        """Holds the estimate; without one, what the headers say. Raises `Unavailable` when that was not decided. A hold
        nobody waits for is released.
        """
        by_amount = estimate is None or self.policy.charge_by is ChargeBy.AMOUNT
        amount = admitted.estimate if estimate is None else estimate.amount
        usage = None if by_amount or estimate is None else estimate.usage
        while isinstance(reserved := await self._hold(admitted, amount, usage), Refusal):
            if estimate is None or usage is None or (usage := estimate.instead(usage, reserved.detail)) is None:
                break
        if isinstance(reserved, Refusal):
            return reserved
        charge = Charge(self, reserved, amount if reserved.price is None else reserved.amount, asked=asked)
        self._open.add(charge)
        if estimate is None or usage is None or reserved.price is None or "max_output" in usage:
            return charge
        output = reserved.price.breakdown.get("output")  # of one answer, by the card
        more = Decimal(0) if output is None else (estimate.choices - 1) * Decimal(output.amount)
        refusal = await charge.add(more) if more else None
        if refusal is not None:
            charge.settle(Ending.CUT)
        return refusal or charge

    async def known(self, admitted: Admitted, *, anew: bool = False) -> Admitted | Refusal:
        """Whose the API key of a request is, which never changes; `anew`: asks whether it still works, as the hold of a
        metered request does. Raises `Unavailable`.
        """
        key = read_api_key(admitted.api_key)
        owner = "" if key is None or anew else self._owners.get(key.hash, "")
        if not owner:
            asked = await self.credits.deduct(api_key=admitted.api_key, amount=0)
            if isinstance(asked, Refusal):
                return asked
            owner = asked.user_id
            if len(self._owners) >= OWNERS_MAX:
                self._owners.clear()
            if key is not None:
                self._owners[key.hash] = owner
        if admitted.user_id and admitted.user_id != owner:
            return _OF_ANOTHER
        return replace(admitted, user_id=owner)

    async def has_credits(self, user_id: str) -> bool:
        """Whether a user has any; one of whom nobody can say so has."""
        try:
            balance = await self.credits.balance(user_id)
        except Unavailable:
            return True
        return isinstance(balance, Refusal) or balance.available + (balance.restricted or 0) > 0

    async def _hold(self, admitted: Admitted, amount: Number, usage: WireUsage | None) -> Reserved | Refusal:
        # An id of ours, so that a hold whose answer got lost can be named; nobody can guess it.
        reservation_id = f"x_{secrets.token_urlsafe(16)}"
        is_auto = usage is not None and self.policy.charge_by is ChargeBy.AUTO
        try:
            return await self.credits.hold(
                None if admitted.api_key else admitted.user_id,
                plain(amount) if usage is None else None,
                api_key=admitted.api_key or None,
                usage=usage,
                amount_without_price=plain(amount) if is_auto else None,
                ttl_seconds=self.policy.ttl_seconds,
                reservation_id=reservation_id,
                reference=admitted.request_id,
                metadata=None if admitted.request_id is None else {"request_id": admitted.request_id},
            )
        except (Unavailable, asyncio.CancelledError):
            self._runner.undo(reservation_id, self.settlements)
            raise

    def watch(self, user_id: str, asked: Asked) -> WatchedWork | None:
        """What looks at a request that reads background work; None for one that reads none."""
        if not asked.work:
            return None
        shape = self.policy.results_shape if asked.lines else self.policy.work_shape
        return WatchedWork(self.work, self.settlements, shape, user_id, asked.work, lines=asked.lines)

    def count_unread(self, why: Unread, provider: str, reservation_id: str) -> None:
        """Counts a response that told no usage, and says so in the log whenever there are twice as many."""
        self.unread[why.value, provider] += 1
        times = self.unread[why.value, provider]
        if times & (times - 1) == 0:
            _log.warning(f"no usage was read: {why}", provider=provider, times=times, reservation_id=reservation_id)

    def begin_work(self, charge: Charge, work_id: str) -> asyncio.Task[Settled | None]:
        """Ends a charge by one of the work that its request began."""
        self._open.discard(charge)
        begin = partial(self.work.begin, charge.reserved.user_id, work_id, charge.reserved)
        return self.settlements.settle(begin, f"background work {work_id}")

    def end(self, charge: Charge, verdict: Verdict) -> asyncio.Task[Settled | None]:
        """Settles a charge; `Charge.settle` calls it."""
        self._open.discard(charge)
        reservation_id = charge.reserved.reservation_id
        return self.settlements.settle(
            partial(self._runner.run, reservation_id, verdict), words(reservation_id, verdict)
        )

    async def close(self) -> None:
        """Settles every charge: those of exchanges that did not end by what was seen of them. Then the meter can be
        closed.
        """
        for charge in tuple(self._open):
            charge.settle(Ending.CUT)
        await self.settlements.drain()


class Charge:
    """An open hold and the response it pays for. Tell it of the response, then `settle` it once."""

    def __init__(self, charger: Charger, reserved: Reserved, estimate: Number, *, asked: Asked = CHARGED) -> None:
        self.reserved = reserved
        self.asks_background = False
        """Whether the request says that it is to be done in the background."""
        self._begins_work, self._queues_work = asked.begins, asked.queues
        self._provider = asked.provider
        self.settled: asyncio.Task[Settled | None] | None = None
        self._charger = charger
        self._estimate = estimate
        self._status: int | None = None
        self._told: Number | None = None
        self._reader: Reader | None = None
        self._ttl_seconds = reserved.expires_in
        self._timer = self._renew_later()

    async def add(self, amount: Decimal) -> Refusal | None:
        """Holds more, before anything is served. Raises `Unavailable`."""
        answer = await self._charger.credits.extend(
            self.reserved.reservation_id, ttl_seconds=self._ttl_seconds, add_amount=amount
        )
        if isinstance(answer, Refusal):
            return answer
        self._estimate += amount
        return None

    def respond(self, status: int, headers: Headers) -> None:
        """The response starts. A header that tells 0 may have been sent before anything was known: the body counts."""
        headers = tuple(headers)
        policy = self._charger.policy
        self._status = status
        if not self.counts:
            return
        self._told = self._told_by(headers) if policy.usage_headers else None
        self._reader = open_reader(
            policy.work_shape if self._begins_work else policy.shape,
            content_encoding=coding_of(headers),
            headers=headers,
            inspect_bytes_max=policy.inspect_bytes_max,
        )

    def trail(self, trailers: Headers) -> None:
        """The trailers of the response, which tell what its headers could not know yet."""
        if not self._told and self.counts:
            self._told = self._told_by(trailers) or self._told

    def _told_by(self, headers: Headers) -> Number | None:
        names = self._charger.policy.usage_headers
        told: dict[bytes, Number] = {}
        for spelling, value in headers:
            name = spelling.lower()
            if name in names and (number := read_number(value)) is not None:
                told[name] = max(number, told.get(name, 0))
        return next((told[name] for name in names if told.get(name)), 0 if told else None)

    @property
    def counts(self) -> bool:
        """Whether the response is one that is charged, by its status."""
        return self._status is not None and self._status in self._charger.policy.charge_statuses

    def see(self, chunk: bytes) -> None:
        """The next bytes of the response, as they travel. Never raises."""
        if self._reader is not None:
            self._reader.feed(chunk)

    def settle(self, ending: Ending) -> asyncio.Task[Settled | None]:
        """Commits or releases, in a task that outlives the request. The first ending counts."""
        if self.settled is None:
            self._timer.cancel()
            told, usage = self._usage()
            work_id = self._begun() if usage is None else ""
            if work_id:
                self.settled = self._charger.begin_work(self, work_id)
                return self.settled
            verdict = verdict_on(
                self._charger.policy,
                ending=ending,
                status=self._status,
                usage=usage,
                failed=usage is None and self._reader is not None and self._reader.failed,
                estimate=self._estimate,
            )
            price = self.reserved.price
            if price is not None and ending is Ending.CLEAN and self._is_counted(price, usage):
                verdict = Verdict(charge=True)
            if told is not None and price is not None and verdict.charge:
                verdict = replace(verdict, usage=usage_told(told, price))
            self.settled = self._charger.end(self, verdict)
        return self.settled

    def _is_counted(self, price: Price, usage: Number | None) -> bool:
        """Whether the request itself says what was used: so many images, which no answer counts."""
        is_answered = usage is None and self.counts and self._reader is not None and not self._reader.failed
        return is_answered and "images" in price.breakdown

    def _begun(self) -> str:
        """The id of the background work that the response told of."""
        if not self._begins_work or self._reader is None or self._reader.failed:
            return ""
        return self._reader.work.id_of_begun(asked=self.asks_background, queued=self._queues_work)

    def _usage(self) -> tuple[Usage | None, Number | None]:
        """What a card can price of what was told, and what it is without one."""
        reader = self._reader
        if self._told or reader is None:
            return None, self._told
        reader.finish()
        usage = reader.usage
        if usage is not None:
            return None if usage.profile == Format.KEY else usage, usage.total
        if self._told is None and not reader.failed and not self._begun():
            self._charger.count_unread(reader.unread, self._provider, self.reserved.reservation_id)
        return None, self._told

    def _renew_later(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._ttl_seconds / RENEWALS_PER_TTL, self._renew)

    def _renew(self) -> None:
        self._charger.settlements.spawn(self._extend())

    async def _extend(self) -> None:
        """More time for the hold, counted from now."""
        try:
            answer = await self._charger.credits.extend(self.reserved.reservation_id, ttl_seconds=self._ttl_seconds)
        except Unavailable:
            answer = None  # two more tries fit into the time that is left
        if self.settled is not None:
            return
        if isinstance(answer, Refusal):
            _log.warning("reservation %s ended before its request: %s", self.reserved.reservation_id, answer.detail)
        else:
            self._timer = self._renew_later()
