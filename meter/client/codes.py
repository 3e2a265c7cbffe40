"""The Python API of promo codes, a part of `Credits` in meter/client/credits.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from pydantic import JsonValue

from meter.client.calls import Calls, CreditAmount
from meter.contract.answers import Added, Pending, Refusal
from meter.contract.codes import CodePage, CreatedCode, ListedCode


class CodeCalls(Calls):
    """Promo codes and who redeems them. Every method raises `Unavailable` when the call was not decided."""

    async def create_code(
        self,
        amount: CreditAmount,
        *,
        max_total: int,
        code: str | None = None,
        max_per_user: int = 1,
        valid_days: int | None = None,
        only: Sequence[str] | None = None,
        priority: int = 10,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        description: str | None = None,
        idempotency_key: str | None = None,
    ) -> CreatedCode | Refusal:
        """Makes a code; without a `code` its text is drawn by lot. `code` of the answer is the text, told this once.
        `only`: the tags of what its credits may be spent on.
        """
        body = {
            "code": code,
            "amount": amount,
            "priority": priority,
            "valid_days": valid_days,
            "only": only,
            "max_total": max_total,
            "max_per_user": max_per_user,
            "starts_at": starts_at,
            "ends_at": ends_at,
            "description": description,
        }
        return await self._call("create_code", CreatedCode, body=body, key=idempotency_key)

    async def codes(self, *, limit: int = 50, cursor: str = "") -> CodePage | Refusal:
        """A page of codes."""
        return await self._call("codes", CodePage, query={"limit": str(limit), "cursor": cursor})

    async def stop_code(
        self, code_id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> ListedCode | Refusal:
        """Stops a code: it is not taken any more, and what it gave stays."""
        body, path = {"reason": reason}, {"code_id": code_id}
        return await self._call("stop_code", ListedCode, path=path, body=body, key=idempotency_key)

    async def redeem(
        self,
        user_id: str,
        code: str,
        *,
        reference: str | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
        idempotency_key: str | None = None,
    ) -> Added | Pending | Refusal:
        """Gives a user what a code gives, as `add` does."""
        body = {"user_id": user_id, "code": code, "reference": reference, "metadata": metadata}
        return await self._call_or_later("redeem", Added, Pending, body=body, key=idempotency_key)
