"""The Python API of searches among all users, a part of `Credits` in meter/client/credits.py."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from meter.client.calls import Calls, wire_query
from meter.contract.answers import Kind, Refusal
from meter.contract.search import (
    EndingPage,
    FoundAnswer,
    LedgerPage,
    RefusalCountPage,
    RefusedPage,
    TransactionStory,
)


class SearchCalls(Calls):
    """Whose an id is, and the transactions and refusals of everybody. They need a store."""

    async def find(self, id: str) -> FoundAnswer | Refusal:  # noqa: A002 - as the call has it
        """What has exactly that id (a user, request, transaction, reservation, grant, key, delivery or refusal), then
        users whose ids begin so.
        """
        return await self._call("find", FoundAnswer, query={"id": id})

    async def transactions(
        self,
        *,
        user_id: str | None = None,
        reservation_id: str | None = None,
        reference: str | None = None,
        kind: Kind | Sequence[Kind] | None = None,
        actor: str | None = None,
        metadata: tuple[str, str] | None = None,
        from_: datetime | None = None,
        to: datetime | None = None,
        refusals: bool = False,
        limit: int = 50,
        cursor: str = "",
    ) -> LedgerPage | Refusal:
        """A page of the transactions of everybody, newest first; with `refusals` also what was refused. `metadata` is a
        member and its value. A page may be short, or empty, and yet have a cursor.
        """
        query = {
            "user_id": user_id,
            "reservation_id": reservation_id,
            "reference": reference,
            "kind": kind if kind is None or isinstance(kind, str) else ",".join(kind),
            "actor": actor,
            "metadata": None if metadata is None else ":".join(metadata),
            "from": from_,
            "to": to,
            "include": "refusals" if refusals else None,
        }
        return await self._call("transactions", LedgerPage, query=wire_query(query, limit, cursor))

    async def transaction(self, transaction_id: str) -> TransactionStory | Refusal:
        """A transaction with all that belongs to it: of a charge its hold, extensions and refunds, and how much of it
        can still be refunded.
        """
        return await self._call("transaction", TransactionStory, path={"transaction_id": transaction_id})

    async def refusals(
        self,
        *group_by: Literal["user", "reason", "hour"],
        from_: datetime | None = None,
        to: datetime | None = None,
        limit: int = 50,
        cursor: str = "",
    ) -> RefusalCountPage | Refusal:
        """How often was refused, the most first, in whole hours: of the last day where no time is given."""
        query = {"group_by": ",".join(group_by) or None, "from": from_, "to": to}
        return await self._call("refusals", RefusalCountPage, query=wire_query(query, limit, cursor))

    async def refusals_of(self, user_id: str, *, limit: int = 50, cursor: str = "") -> RefusedPage | Refusal:
        """The last refusals of a user, each with what refused and the figures of that moment."""
        query = wire_query({}, limit, cursor)
        return await self._call("refusals_of", RefusedPage, path={"user_id": user_id}, query=query)

    async def ending(self, days: float = 7, *, limit: int = 50, cursor: str = "") -> EndingPage | Refusal:
        """What ends within so many days, of everybody, the soonest first."""
        return await self._call("ending", EndingPage, query=wire_query({"days": days}, limit, cursor))
