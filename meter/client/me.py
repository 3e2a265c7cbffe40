"""The Python API of what users ask about themselves, a part of `Credits` in meter/client/credits.py."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from meter.client.calls import Calls, wire_query
from meter.contract.answers import Balance, Kind, Refusal, TransactionPage
from meter.contract.keys import KeyPage
from meter.contract.reports import FiguresPage, UsagePage


class MeCalls(Calls):
    """By the key of `MeterClient(url, api_key="mk_…")`, which has the scope `read:self`, about the path that it names.
    A `Meter` in process has no key, and is refused.
    """

    async def my_balance(self, *, at: datetime | None = None) -> Balance | Refusal:
        """One's own balance, now or at a past time."""
        return await self._call("my_balance", Balance, query={} if at is None else {"at": at.isoformat()})

    async def my_history(
        self,
        *,
        kind: Kind | None = None,
        reference: str | None = None,
        from_: datetime | None = None,
        to: datetime | None = None,
        limit: int = 50,
        cursor: str = "",
    ) -> TransactionPage | Refusal:
        """A page of one's own transactions, newest first."""
        query = {"kind": kind, "reference": reference, "from": from_, "to": to}
        return await self._call("my_history", TransactionPage, query=wire_query(query, limit, cursor))

    async def my_usage(
        self,
        by: Literal["day", "plan", "user"] = "day",
        *,
        from_: datetime | None = None,
        to: datetime | None = None,
        limit: int = 50,
        cursor: str = "",
    ) -> UsagePage | Refusal:
        """A page of sums of what one was charged, refunded and granted."""
        query = {"by": by, "from": from_, "to": to}
        return await self._call("my_usage", UsagePage, query=wire_query(query, limit, cursor))

    async def my_figures(
        self,
        *group_by: str,
        from_: datetime | None = None,
        to: datetime | None = None,
        time_zone: str = "UTC",
        limit: int = 50,
        cursor: str = "",
    ) -> FiguresPage | Refusal:
        """A page of usage figures of one's own path and all below it; see `figures`."""
        query = {"group_by": ",".join(group_by) or None, "from": from_, "to": to, "time_zone": time_zone}
        return await self._call("my_usage", FiguresPage, query=wire_query(query, limit, cursor))

    async def my_keys(self, *, limit: int = 50, cursor: str = "") -> KeyPage | Refusal:
        """A page of the API keys of one's own path."""
        return await self._call("my_keys", KeyPage, query={"limit": str(limit), "cursor": cursor})
