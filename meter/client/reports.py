"""The Python API of reports, a part of `Credits` in meter/client/credits.py."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from meter.client.calls import Calls, wire_query
from meter.contract.answers import Refusal
from meter.contract.reports import (
    AccountState,
    EventKind,
    EventPage,
    FiguresPage,
    UsagePage,
    UserOrder,
    UserPage,
)
from meter.contract.runway import Runway


class ReportCalls(Calls):
    """Who there is, who spent what, and what was refused or changed. They need a store."""

    async def users(
        self,
        *,
        starts_with: str = "",
        state: AccountState | None = None,
        plan_id: str | None = None,
        metadata: tuple[str, str] | None = None,
        order: UserOrder = "user_id",
        limit: int = 50,
        cursor: str = "",
    ) -> UserPage | Refusal:
        """A page of users, with their balances and sums; `metadata` is a member and its value. An order with `-` is
        from the greatest down.
        """
        query = {
            "starts_with": starts_with,
            "state": state,
            "plan_id": plan_id,
            "metadata": None if metadata is None else ":".join(metadata),
            "order": order,
        }
        return await self._call("users", UserPage, query=wire_query(query, limit, cursor))

    async def usage(
        self,
        by: Literal["user", "day", "plan", "metadata"] = "user",
        *,
        metadata_member: str | None = None,
        user_id: str | None = None,
        from_: datetime | None = None,
        to: datetime | None = None,
        limit: int = 50,
        cursor: str = "",
    ) -> UsagePage | Refusal:
        """A page of sums of what was charged, refunded and granted."""
        query = {"by": by, "metadata_member": metadata_member, "user_id": user_id, "from": from_, "to": to}
        return await self._call("usage", UsagePage, query=wire_query(query, limit, cursor))

    async def figures(
        self,
        *group_by: str,
        path: str | None = None,
        from_: datetime | None = None,
        to: datetime | None = None,
        time_zone: str = "UTC",
        limit: int = 50,
        cursor: str = "",
    ) -> FiguresPage | Refusal:
        """A page of usage figures of a path and all below it, by up to four of `user path level_1 … level_6 model
        feature key rate_card_version plan day hour`; without any, of all together. `from_` and `to` are where buckets
        begin.
        """
        query = {"group_by": ",".join(group_by) or None, "path": path, "from": from_, "to": to, "time_zone": time_zone}
        return await self._call("usage", FiguresPage, query=wire_query(query, limit, cursor))

    async def runway(self, user_id: str) -> Runway | Refusal:
        """How long the credits of a user last at the pace of the last days."""
        return await self._call("runway", Runway, path={"user_id": user_id})

    async def events(
        self,
        kind: EventKind | None = None,
        *,
        user_id: str | None = None,
        from_: datetime | None = None,
        to: datetime | None = None,
        limit: int = 50,
        cursor: str = "",
    ) -> EventPage | Refusal:
        """A page of what was refused, changed by hand, or went wrong, newest first."""
        query = {"kind": kind, "user_id": user_id, "from": from_, "to": to}
        return await self._call("events", EventPage, query=wire_query(query, limit, cursor))
