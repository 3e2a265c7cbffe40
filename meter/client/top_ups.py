"""The Python API of auto top-up, a part of `Credits` in meter/client/credits.py."""

from __future__ import annotations

from typing import Literal

from meter.client.calls import Calls, CreditAmount, wire_query
from meter.contract.answers import Refusal
from meter.contract.top_ups import Period, TopUp, TopUpPage


class TopUpCalls(Calls):
    """What is bought for an account when few credits are left. Every method raises `Unavailable` when the call was not
    decided.
    """

    async def set_top_up(
        self,
        user_id: str,
        *,
        below: CreditAmount,
        amount: CreditAmount,
        payment_reference: str,
        most: CreditAmount | None = None,
        period: Period = "month",
        idempotency_key: str | None = None,
    ) -> TopUp | Refusal:
        """Says that `amount` is bought when no more than `below` is available, and `most` in a period. One that is off
        stays off.
        """
        body = {
            "below": below,
            "amount": amount,
            "payment_reference": payment_reference,
            "most": most,
            "period": period,
        }
        return await self._call("set_top_up", TopUp, path={"user_id": user_id}, body=body, key=idempotency_key)

    async def top_up(self, user_id: str) -> TopUp | Refusal:
        """What is bought for an account."""
        return await self._call("top_up", TopUp, path={"user_id": user_id})

    async def switch_top_up(
        self, user_id: str, *, enabled: bool, description: str | None = None, idempotency_key: str | None = None
    ) -> TopUp | Refusal:
        """Turns it on or off."""
        path, body = {"user_id": user_id}, {"enabled": enabled, "description": description}
        return await self._call("switch_top_up", TopUp, path=path, body=body, key=idempotency_key)

    async def remove_top_up(self, user_id: str, *, idempotency_key: str | None = None) -> TopUp | Refusal:
        """Buys nothing any more, and forgets the payer."""
        return await self._call("remove_top_up", TopUp, path={"user_id": user_id}, key=idempotency_key)

    async def top_ups(
        self,
        *,
        user_id: str | None = None,
        state: Literal["open", "ended"] | None = None,
        limit: int = 50,
        cursor: str = "",
    ) -> TopUpPage | Refusal:
        """A page of requests to buy credits, newest first."""
        query = {"user_id": user_id, "state": state}
        return await self._call("top_ups", TopUpPage, query=wire_query(query, limit, cursor))
