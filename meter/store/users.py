"""What a store is asked for when somebody looks through all users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from meter.store.rows import AccountRow

AccountState = Literal["active", "suspended", "in_debt", "empty"]
"""active: it may spend and has something; empty: it has nothing left. An account may be in several."""
UserOrder = Literal["user_id", "available", "reserved", "debt", "spent_today", "last_spent_at"]


@dataclass(frozen=True, slots=True)
class UsersWanted:
    """Which users, in which order: `descending` for all but user_id, by which those of one value stand. `since_ms`:
    when today began, where a bucket does. `member`: of their metadata, and its value as text.
    """

    since_ms: int
    starts_with: str = ""
    state: AccountState | None = None
    plan_id: str | None = None
    member: tuple[str, str] | None = None
    order: UserOrder = "user_id"
    descending: bool = False


class UserFound(NamedTuple):
    """A user as the store has it: units spent since then, and the plans of now."""

    account: AccountRow
    spent: int
    plan_ids: tuple[str, ...]


class UserStore(Protocol):
    """A part of every store. Raises `StoreUnavailable`."""

    async def users(self, wanted: UsersWanted, after: tuple[int, str] | None, limit: int) -> Sequence[UserFound]:
        """Users behind that (value of the order, user_id); the value is 0 where they are in the order of their ids."""
        ...


def value_of(found: UserFound, order: UserOrder) -> int:
    """By what a user has its place in an order."""
    if order == "user_id":
        return 0
    if order == "spent_today":
        return found.spent
    account = found.account
    return account.last_spent_at_ms or 0 if order == "last_spent_at" else int(getattr(account, order))


def end_of(prefix: str) -> str:
    """What comes right behind all texts that begin so, by bytes."""
    return f"{prefix[:-1]}{chr(ord(prefix[-1]) + 1)}"
