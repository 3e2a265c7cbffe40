"""The Python API: one class of calls, whatever carries them (meter/in_process.py, meter/client/over_http.py).

Amounts are credits: `int`, `Decimal`, a plain decimal string, or a `float` that means its shortest decimal. A refusal
is a value, a `Refusal`, which is false; `reserve` alone raises `HoldRefused`, because its block must not run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Literal

from meter.client.calls import CreditAmount, Metadata, Null, wire_text
from meter.client.codes import CodeCalls
from meter.client.jobs import JobCalls
from meter.client.keys import KeyCalls
from meter.client.me import MeCalls
from meter.client.plans import PlanCalls
from meter.client.rates import RateCalls, Usage
from meter.client.reports import ReportCalls
from meter.client.search import SearchCalls
from meter.client.system import SystemCalls
from meter.client.top_ups import TopUpCalls
from meter.client.webhooks import WebhookCalls
from meter.contract import answers
from meter.contract.answers import Refusal
from meter.contract.requests import CommitShortfall, Over
from meter.errors import MeterError, Unavailable


class HoldRefused(MeterError):
    """A hold was refused; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail)
        self.refusal = refusal


class Hold:
    """An open reservation inside a `reserve` block."""

    def __init__(self, credits_: Credits, reserved: answers.Reserved) -> None:
        self._credits = credits_
        self.reserved = reserved
        self.outcome: answers.Committed | answers.Released | Refusal | None = None
        """How the hold ended; None while it is open."""

    @property
    def reservation_id(self) -> str:
        """The id of the reservation."""
        return self.reserved.reservation_id

    async def commit(
        self,
        amount: CreditAmount | None = None,
        *,
        usage: Usage | None = None,
        over: Over = "cap",
        shortfall: CommitShortfall | None = None,
    ) -> answers.Committed | Refusal:
        """Charges what was used; all that is held when no amount is given. A refusal leaves the hold open."""
        answer = await self._credits.commit(self.reservation_id, amount, usage=usage, over=over, shortfall=shortfall)
        if answer:
            self.outcome = answer
        return answer

    async def release(self) -> answers.Released | Refusal:
        """Gives everything back."""
        answer = await self._credits.release(self.reservation_id)
        self.outcome = answer
        return answer

    async def _give_back(self) -> None:
        """Releases what is still open; what cannot be released now ends by itself."""
        if self.outcome is None:
            with suppress(Unavailable):
                await self.release()


class Credits(
    PlanCalls,
    WebhookCalls,
    JobCalls,
    ReportCalls,
    SearchCalls,
    SystemCalls,
    RateCalls,
    KeyCalls,
    CodeCalls,
    TopUpCalls,
    MeCalls,
):
    """Every call that there is. Each method raises `Unavailable` when the call was not decided."""

    async def add(
        self,
        user_id: str,
        amount: CreditAmount,
        *,
        description: str | None = None,
        reference: str | None = None,
        grant_id: str | None = None,
        priority: int = 10,
        effective_at: datetime | None = None,
        expires_at: datetime | None = None,
        only: Sequence[str] | None = None,
        metadata: Metadata | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> answers.Added | answers.Pending | Refusal:
        """Adds a grant of credits. `only`: the tags of what they may be spent on (`model:gpt-4o*`, `feature:images`).
        `Pending`: it is durable, but Redis went away before it had it.
        """
        body = {
            "user_id": user_id,
            "amount": amount,
            "description": description,
            "reference": reference,
            "grant_id": grant_id,
            "priority": priority,
            "effective_at": effective_at,
            "expires_at": expires_at,
            "only": only,
            "metadata": metadata,
            "dry_run": dry_run or None,
        }
        return await self._call_or_later("add", answers.Added, answers.Pending, body=body, key=idempotency_key)

    async def adjust(
        self,
        user_id: str,
        amount: CreditAmount,
        reason: str,
        *,
        grant_id: str | None = None,
        reference: str | None = None,
        metadata: Metadata | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> answers.Adjusted | answers.Pending | Refusal:
        """Sets right what a user has: above zero as `add` does, below it free credits are taken, in burn order or of
        the grant that is named.
        """
        body = {
            "user_id": user_id,
            "amount": amount,
            "reason": reason,
            "grant_id": grant_id,
            "reference": reference,
            "metadata": metadata,
            "dry_run": dry_run or None,
        }
        return await self._call_or_later("adjust", answers.Adjusted, answers.Pending, body=body, key=idempotency_key)

    async def deduct(
        self,
        user_id: str | None = None,
        amount: CreditAmount | None = None,
        *,
        api_key: str | None = None,
        usage: Usage | None = None,
        amount_without_price: CreditAmount | None = None,
        description: str | None = None,
        reference: str | None = None,
        shortfall: Literal["reject", "partial", "overdraft"] = "reject",
        tags: Sequence[str] | None = None,
        metadata: Metadata | None = None,
        idempotency_key: str | None = None,
    ) -> answers.Deducted | Refusal:
        """Spends credits in one step, of a user or of whom an API key names: an amount, or what a usage costs by the
        rate card (`amount_without_price` where no card prices the user). `tags`: what it is for, so that grants which
        are for that only pay for it, too.
        """
        body = {
            "user_id": user_id,
            "api_key": api_key,
            "amount": amount,
            "usage": usage,
            "amount_without_price": amount_without_price,
            "description": description,
            "reference": reference,
            "shortfall": shortfall,
            "tags": tags,
            "metadata": metadata,
        }
        return await self._call("deduct", answers.Deducted, body=body, key=idempotency_key)

    async def hold(
        self,
        user_id: str | None = None,
        amount: CreditAmount | None = None,
        *,
        api_key: str | None = None,
        usage: Usage | None = None,
        amount_without_price: CreditAmount | None = None,
        ttl_seconds: float | None = None,
        reservation_id: str | None = None,
        description: str | None = None,
        reference: str | None = None,
        tags: Sequence[str] | None = None,
        metadata: Metadata | None = None,
        idempotency_key: str | None = None,
    ) -> answers.Reserved | Refusal:
        """Holds an amount, or what a usage costs at most (`amount_without_price` where no card prices the user), until
        commit, release or its end. `reserve` is the block that ends it for you.
        """
        body = {
            "user_id": user_id,
            "api_key": api_key,
            "amount": amount,
            "usage": usage,
            "amount_without_price": amount_without_price,
            "ttl_seconds": ttl_seconds,
            "reservation_id": reservation_id,
            "description": description,
            "reference": reference,
            "tags": tags,
            "metadata": metadata,
        }
        return await self._call("reserve", answers.Reserved, body=body, key=idempotency_key)

    @asynccontextmanager
    async def reserve(
        self,
        user_id: str | None = None,
        amount: CreditAmount | None = None,
        *,
        api_key: str | None = None,
        usage: Usage | None = None,
        ttl_seconds: float | None = None,
        reservation_id: str | None = None,
        description: str | None = None,
        reference: str | None = None,
        tags: Sequence[str] | None = None,
        metadata: Metadata | None = None,
    ) -> AsyncIterator[Hold]:
        """Holds an amount for a block. The block commits what it used; leaving without a commit charges all of it (the
        answer is the hold's `outcome`), an exception releases it. Raises `HoldRefused` when the hold is refused.
        """
        reserved = await self.hold(
            user_id,
            amount,
            api_key=api_key,
            usage=usage,
            ttl_seconds=ttl_seconds,
            reservation_id=reservation_id,
            description=description,
            reference=reference,
            tags=tags,
            metadata=metadata,
        )
        if isinstance(reserved, Refusal):
            raise HoldRefused(reserved)
        hold = Hold(self, reserved)
        try:
            yield hold
        except BaseException:
            await asyncio.shield(asyncio.create_task(hold._give_back()))  # a second cancellation does not stop it
            raise
        if hold.outcome is None:
            hold.outcome = await hold.commit()

    async def commit(
        self,
        reservation_id: str,
        amount: CreditAmount | None = None,
        *,
        usage: Usage | None = None,
        over: Over = "cap",
        shortfall: CommitShortfall | None = None,
        description: str | None = None,
        reference: str | None = None,
        metadata: Metadata | None = None,
        idempotency_key: str | None = None,
    ) -> answers.Committed | Refusal:
        """Settles a reservation; the same call again gets the same answer. `over`: what is charged beyond what is held;
        `shortfall`: what is not covered then, told (`partial`) or a reason to refuse (`reject`).
        """
        body = {
            "amount": amount,
            "usage": usage,
            "over": over,
            "shortfall": shortfall,
            "description": description,
            "reference": reference,
            "metadata": metadata,
        }
        path = {"reservation_id": reservation_id}
        return await self._call("commit", answers.Committed, path=path, body=body, key=idempotency_key)

    async def release(
        self,
        reservation_id: str,
        *,
        description: str | None = None,
        reference: str | None = None,
        metadata: Metadata | None = None,
        idempotency_key: str | None = None,
    ) -> answers.Released | Refusal:
        """Gives a reservation back."""
        body = {"description": description, "reference": reference, "metadata": metadata}
        path = {"reservation_id": reservation_id}
        return await self._call("release", answers.Released, path=path, body=body, key=idempotency_key)

    async def extend(
        self,
        reservation_id: str,
        *,
        ttl_seconds: float | None = None,
        add_amount: CreditAmount = 0,
        idempotency_key: str | None = None,
    ) -> answers.Extended | Refusal:
        """Gives a reservation more time, counted from now, or more credits."""
        body = {"ttl_seconds": ttl_seconds, "add_amount": add_amount}
        path = {"reservation_id": reservation_id}
        return await self._call("extend", answers.Extended, path=path, body=body, key=idempotency_key)

    async def refund(
        self,
        user_id: str,
        transaction_id: str,
        amount: CreditAmount | None = None,
        *,
        description: str | None = None,
        reference: str | None = None,
        metadata: Metadata | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> answers.Refunded | Refusal:
        """Gives back part of a charge; all that is left of it when no amount is given."""
        body = {
            "user_id": user_id,
            "transaction_id": transaction_id,
            "amount": amount,
            "description": description,
            "reference": reference,
            "metadata": metadata,
            "dry_run": dry_run or None,
        }
        return await self._call("refund", answers.Refunded, body=body, key=idempotency_key)

    async def batch(
        self, operations: Sequence[Mapping[str, object]], *, atomic: bool = False, idempotency_key: str | None = None
    ) -> answers.BatchAnswer | Refusal:
        """Runs deduct, reserve, commit and release operations, each with its `op`."""
        body = {"operations": list(operations), "atomic": atomic}
        return await self._call("batch", answers.BatchAnswer, body=body, key=idempotency_key)

    async def balance(self, user_id: str, *, at: datetime | None = None) -> answers.Balance | Refusal:
        """Reads a balance, now or at a past time; zeros for a user who was never heard of."""
        query = {} if at is None else {"at": at.isoformat()}
        return await self._call("balance", answers.Balance, path={"user_id": user_id}, query=query)

    async def history(
        self,
        user_id: str,
        *,
        kind: answers.Kind | None = None,
        reference: str | None = None,
        from_: datetime | None = None,
        to: datetime | None = None,
        limit: int = 50,
        cursor: str = "",
    ) -> answers.TransactionPage | Refusal:
        """A page of transactions, newest first; `from_` inclusive, `to` exclusive. `reference`: only those of it."""
        query = {"limit": str(limit), "cursor": cursor}
        if kind is not None:
            query["kind"] = kind
        if reference is not None:
            query["reference"] = reference
        if from_ is not None:
            query["from"] = from_.isoformat()
        if to is not None:
            query["to"] = to.isoformat()
        return await self._call("history", answers.TransactionPage, path={"user_id": user_id}, query=query)

    async def trace(self, reference: str, *, limit: int = 50, cursor: str = "") -> answers.TransactionPage | Refusal:
        """A page of the transactions of a reference, whoever's they are, newest first."""
        query = {"reference": reference, "limit": str(limit), "cursor": cursor}
        return await self._call("trace", answers.TransactionPage, query=query)

    async def expiring(
        self, user_id: str, *, days: float = 7, limit: int = 50, cursor: str = ""
    ) -> answers.GrantPage | Refusal:
        """A page of live grants that end within that many days, by their end."""
        query = {"days": str(days), "limit": str(limit), "cursor": cursor}
        return await self._call("expiring", answers.GrantPage, path={"user_id": user_id}, query=query)

    async def grants(
        self, user_id: str, *, state: Literal["live", "all"] = "live", limit: int = 50, cursor: str = ""
    ) -> answers.GrantPage | Refusal:
        """A page of grants, in burn order."""
        query = {"state": state, "limit": str(limit), "cursor": cursor}
        return await self._call("grants", answers.GrantPage, path={"user_id": user_id}, query=query)

    async def void(
        self,
        user_id: str,
        grant_id: str,
        *,
        description: str | None = None,
        reference: str | None = None,
        metadata: Metadata | None = None,
        dry_run: bool = False,
        idempotency_key: str | None = None,
    ) -> answers.Voided | Refusal:
        """Ends a grant early."""
        body = {"description": description, "reference": reference, "metadata": metadata, "dry_run": dry_run or None}
        path = {"user_id": user_id, "grant_id": grant_id}
        return await self._call("void", answers.Voided, path=path, body=body, key=idempotency_key)

    async def reservation(self, reservation_id: str) -> answers.Reservation | Refusal:
        """Reads a reservation, open or lately finished."""
        return await self._call("reservation", answers.Reservation, path={"reservation_id": reservation_id})

    async def reservations(
        self,
        user_id: str,
        *,
        state: Literal["open", "committed", "released", "expired", "all"] = "open",
        limit: int = 50,
        cursor: str = "",
    ) -> answers.ReservationPage | Refusal:
        """A page of reservations: open ones by their end, others by their making."""
        query = {"user_id": user_id, "state": state, "limit": str(limit), "cursor": cursor}
        return await self._call("reservations", answers.ReservationPage, query=query)

    async def explain(
        self, user_id: str, amount: CreditAmount, *, tags: Sequence[str] = ()
    ) -> answers.Explanation | Refusal:
        """What a deduct of an amount, for what the tags say, would do now."""
        query = {"amount": wire_text(amount)}
        if tags:
            query["tags"] = ",".join(tags)
        return await self._call("explain", answers.Explanation, path={"user_id": user_id}, query=query)

    async def user(self, user_id: str) -> answers.User | Refusal:
        """What an account may do."""
        return await self._call("user", answers.User, path={"user_id": user_id})

    async def configure(
        self,
        user_id: str,
        *,
        overdraft_limit: CreditAmount | None = None,
        low_credit_thresholds: Sequence[CreditAmount] | None = None,
        suspended: bool | None = None,
        rate_card: str | Null | None = None,
        price_multiplier: CreditAmount | Null | None = None,
        budgets: Mapping[str, Mapping[str, object] | None] | None = None,
        rate_limits: Mapping[str, Mapping[str, object] | None] | None = None,
        velocity: Mapping[str, object] | Null | None = None,
        pool: bool | None = None,
        use_pools: bool | None = None,
        metadata: Metadata | None = None,
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> answers.User | Refusal:
        """Changes what an account may do; what is None stays as it is, and `NULL` takes it away. `budgets` and
        `rate_limits` by their ids: members of `BudgetChange` and `RateLimitChange` of `meter.contract.rules`, or None
        to take one away; `velocity`: members of `VelocityChange`. `pool`: all below it draw on it; `use_pools`: it, and
        all below it, draw on those above.
        """
        body = {
            "overdraft_limit": overdraft_limit,
            "low_credit_thresholds": None if low_credit_thresholds is None else list(low_credit_thresholds),
            "suspended": suspended,
            "rate_card": rate_card,
            "price_multiplier": price_multiplier,
            "budgets": budgets,
            "rate_limits": rate_limits,
            "velocity": velocity,
            "pool": pool,
            "use_pools": use_pools,
            "metadata": metadata,
            "description": description,
        }
        path = {"user_id": user_id}
        return await self._call("configure", answers.User, path=path, body=body, key=idempotency_key)

    async def reset_budget(
        self, user_id: str, budget_id: str, *, idempotency_key: str | None = None
    ) -> answers.User | Refusal:
        """Begins a budget of an account anew: nothing is used of it."""
        path = {"user_id": user_id, "budget_id": budget_id}
        return await self._call("reset_budget", answers.User, path=path, key=idempotency_key)

    async def anonymise(self, user_id: str) -> answers.Anonymised | answers.Anonymising | Refusal:
        """Takes the name of a user out of everything: rows, keys, texts. What moved stays under a pseudonym.

        Refused while there are credits, holds, debt or a subscription. `Anonymising`: call it again to go on. Done
        twice it does nothing twice.
        """
        path = {"user_id": user_id}
        return await self._call_or_later("anonymise", answers.Anonymised, answers.Anonymising, path=path)
