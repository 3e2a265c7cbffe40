"""The Python API of rate cards, a part of `Credits` in meter/client/credits.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from meter.client.calls import Calls, CreditAmount
from meter.contract.answers import Refusal
from meter.contract.rates import Quote, RateCard, RateCardPage, RateCardVersionPage

Usage = Mapping[str, object]
"""`model`, quantities by dimension (`input`, `output`, …) and, of what is to be held, `max_output`."""


class RateCalls(Calls):
    """What usage costs. Every method raises `Unavailable` when the call was not decided."""

    async def put_rate_card(
        self,
        rate_card_id: str,
        models: Mapping[str, Mapping[str, object]],
        *,
        minimum: CreditAmount = 0,
        per_request: CreditAmount = 0,
        effective_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> RateCard | Refusal:
        """Makes the next version of a rate card, which prices at once, or from `effective_at` on."""
        body = {"models": models, "minimum": minimum, "per_request": per_request, "effective_at": effective_at}
        path = {"rate_card_id": rate_card_id}
        return await self._call("put_rate_card", RateCard, path=path, body=body, key=idempotency_key)

    async def activate_rate_card(
        self,
        rate_card_id: str,
        version: int,
        *,
        effective_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> RateCard | Refusal:
        """Lets a version price, at once or from `effective_at` on; an older one as well."""
        body = {"version": version, "effective_at": effective_at}
        path = {"rate_card_id": rate_card_id}
        return await self._call("activate_rate_card", RateCard, path=path, body=body, key=idempotency_key)

    async def rate_cards(self, *, limit: int = 50, cursor: str = "") -> RateCardPage | Refusal:
        """A page of rate cards."""
        return await self._call("rate_cards", RateCardPage, query={"limit": str(limit), "cursor": cursor})

    async def rate_card(self, rate_card_id: str) -> RateCard | Refusal:
        """The version of a rate card that prices now, or the youngest where none does yet."""
        return await self._call("rate_card", RateCard, path={"rate_card_id": rate_card_id})

    async def rate_card_versions(
        self, rate_card_id: str, *, limit: int = 50, cursor: str = ""
    ) -> RateCardVersionPage | Refusal:
        """A page of the versions of a rate card."""
        path, query = {"rate_card_id": rate_card_id}, {"limit": str(limit), "cursor": cursor}
        return await self._call("rate_card_versions", RateCardVersionPage, path=path, query=query)

    async def quote(
        self,
        user_id: str | None = None,
        amount: CreditAmount | None = None,
        *,
        api_key: str | None = None,
        usage: Usage | None = None,
        tags: Sequence[str] | None = None,
    ) -> Quote | Refusal:
        """What a reserve of an amount, or of a usage, would hold now; changes nothing."""
        body = {"user_id": user_id, "api_key": api_key, "amount": amount, "usage": usage, "tags": tags}
        return await self._call("quote", Quote, body=body)
