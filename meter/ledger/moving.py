"""Rows of the store on their way to other partitions: of each account all that is of now; transactions stay.

A transaction keeps the partition and seq under which it was booked, so nothing that names one is wrong afterwards. All
else goes where its user belongs now. Keys of two partitions that are one now may be the same: the first keeps its name,
the other one is called by its fingerprint, too (meter/store/repeats.py). What is unique in a partition is first put
aside, under a number that no partition has, and then put in its place, so that no row is in the way of another one.
Where a row belongs follows from its user alone: a move that was cut off anywhere is begun again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from meter.errors import MeterError
from meter.keys import partition_of
from meter.ledger.api_keys import EVERYWHERE
from meter.store.base import Store
from meter.store.catalog import Plain
from meter.store.key_rows import ApiKeyRow
from meter.store.repeats import also, plain
from meter.store.rows import AccountRow, GrantRow, OperationRow, ReservationRow

PAGE = 500
_ASIDE = -2
"""And below: where rows are that belong to partition 0, 1, … API keys of operators have -1."""
_BEFORE_ALL = -(10**9)

_R = TypeVar("_R", AccountRow, GrantRow, ReservationRow, ApiKeyRow, OperationRow)
_Owned = TypeVar("_Owned", AccountRow, GrantRow, ReservationRow, ApiKeyRow)
_Keyed = TypeVar("_Keyed", GrantRow, OperationRow)

Step = Callable[[str, int], Awaitable[None]]
"""Told, before each page, what is being done and how many rows of it were."""


class MoveFailed(MeterError):
    """A row changed that nobody may change now."""


@dataclass(slots=True)
class Sums:
    """What may not change by a move. Amounts are units; grants and keys of all times, reservations that are open."""

    accounts: int = 0
    available: int = 0
    reserved: int = 0
    debt: int = 0
    grants: int = 0
    remaining: int = 0
    reservations: int = 0
    operations: int = 0
    api_keys: int = 0

    def text(self) -> str:
        """As the store keeps them."""
        return " ".join(str(value) for value in asdict(self).values())


def sums_in(text: str) -> Sums:
    """Sums as the store keeps them."""
    return Sums(*(int(value) for value in text.split()))


class Moving:
    """Brings the rows of one store from `before` partitions to `partitions`."""

    def __init__(self, store: Store, before: int, partitions: int, step: Step, *, may_meet: bool = True) -> None:
        """`may_meet`: whether rows of two partitions may come to be in one."""
        self._store = store
        self._may_meet = may_meet
        self._before = before
        self._partitions = partitions
        self._step = step
        self.renamed = 0
        """Keys that two partitions knew."""

    async def sums(self) -> Sums:
        """Adds everything up."""
        found = Sums()

        def add_account(row: AccountRow) -> None:
            found.accounts += 1
            found.available += row.available
            found.reserved += row.reserved
            found.debt += row.debt

        def add_grant(row: GrantRow) -> None:
            found.grants += 1
            found.remaining += row.remaining

        def add_reservation(row: ReservationRow) -> None:
            found.reservations += row.state == "open"

        def add_operation(_: OperationRow) -> None:
            found.operations += 1

        def add_key(_: ApiKeyRow) -> None:
            found.api_keys += 1

        await self._over(AccountRow, add_account)
        await self._over(GrantRow, add_grant)
        await self._over(ReservationRow, add_reservation)
        await self._over(OperationRow, add_operation)
        await self._over(ApiKeyRow, add_key)
        return found

    async def run(self) -> None:
        """Moves every row that has to. Raises `MoveFailed` and `StoreUnavailable`."""
        await self._stage(OperationRow)
        await self._stage(GrantRow)
        await self._place(OperationRow)
        await self._place(GrantRow)
        await self._move(AccountRow)
        await self._move(GrantRow)
        await self._move(ReservationRow)
        await self._move(ApiKeyRow)

    def _belongs(self, user_id: str | None) -> int:
        return EVERYWHERE if user_id is None else partition_of(user_id, self._partitions)

    async def _over(self, model: type[_R], take: Callable[[_R], None]) -> None:
        after: Sequence[Plain] | None = None
        done = 0
        while page := await self._page(model, after):
            await self._step(f"count {model.TABLE}", done := done + len(page))
            for row in page:
                take(row)
            after = _place_of(page[-1], model.KEY)

    async def _page(self, model: type[_R], after: Sequence[Plain] | None) -> list[_R]:
        return await self._store.find(model, {}, order_by=model.KEY[0], after=after, limit=PAGE)

    async def _move(self, model: type[_Owned]) -> None:
        """Rows whose keys have no partition, in the order of these."""
        after: Sequence[Plain] | None = None
        done = 0
        while page := await self._page(model, after):
            await self._step(f"move {model.TABLE}", done := done + len(page))
            after = _place_of(page[-1], model.KEY)
            moved = [row for row in page if row.partition != self._belongs(row.user_id)]
            await self._rewrite(moved, [_in(row, self._belongs(row.user_id)) for row in moved])

    async def _stage(self, model: type[_Keyed]) -> None:
        """Puts aside what is unique in its partition by its operation_id."""
        order, done = _order(model), 0
        for number in range(max(self._before, self._partitions)):
            after: Sequence[Plain] = _first(order, "")
            while page := await self._keyed(model, number, after):
                await self._step(f"put aside {model.TABLE}", done := done + len(page))
                after = _place_of(page[-1], order)
                await self._rewrite(page, await self._named(model, page, await self._owners(page)))

    async def _keyed(self, model: type[_Keyed], number: int, after: Sequence[Plain]) -> list[_Keyed]:
        equal = {"partition": number}
        return await self._store.find(model, equal, order_by="operation_id", after=after, limit=PAGE)

    async def _owners(self, page: Sequence[_Keyed]) -> list[int]:
        """Where each of them belongs; one whose transaction is unknown stays, as far as there is such a partition."""
        ids = [str(row.transaction_id) for row in page if isinstance(row, OperationRow)]
        made = await self._store.transactions(ids) if ids else {}
        numbers = []
        for row in page:
            if isinstance(row, GrantRow):
                numbers.append(self._belongs(row.user_id))
            else:
                found = made.get(row.transaction_id)
                numbers.append(row.partition % self._partitions if found is None else self._belongs(found.user_id))
        return numbers

    async def _named(self, model: type[_Keyed], page: Sequence[_Keyed], numbers: Sequence[int]) -> list[_Keyed]:
        """The rows as they are put aside: by their own names, but where another has it."""
        taken: dict[int, set[str]] = {}
        for number in set(numbers):
            names = sorted({name for row in page for name in (plain(row.operation_id or ""), row.operation_id or "")})
            taken[number] = await self._names(model, _ASIDE - number, names[0], names[-1]) if self._may_meet else set()
        rows = []
        for row, number in zip(page, numbers, strict=True):
            name = plain(row.operation_id or "")
            if name in taken[number]:
                name = also(name, row.fingerprint or f"-{row.partition}")
                self.renamed += 1
            taken[number].add(name)
            rows.append(_in(row, _ASIDE - number).model_copy(update={"operation_id": name}))
        return rows

    async def _names(self, model: type[_Keyed], number: int, first: str, last: str) -> set[str]:
        """The operation_ids of a partition from one to another."""
        order, names = _order(model), set()
        after = _first(order, first)
        while page := await self._keyed(model, number, after):
            names |= {row.operation_id for row in page if row.operation_id is not None}
            after = _place_of(page[-1], order)
            if (page[-1].operation_id or "") > last:
                break
        return names

    async def _place(self, model: type[_Keyed]) -> None:
        """Puts what was put aside in its place."""
        order, done = _order(model), 0
        for number in range(self._partitions):
            after = _first(order, "")
            while page := await self._keyed(model, _ASIDE - number, after):
                await self._step(f"move {model.TABLE}", done := done + len(page))
                after = _place_of(page[-1], order)
                await self._rewrite(page, [_in(row, number) for row in page])

    async def _rewrite(self, old: Sequence[_R], new: Sequence[_R]) -> None:
        if old and not await self._store.rewrite(old, new):
            raise MoveFailed(f"rows of {old[0].TABLE} were changed by another process; run it again")


def _in(row: _R, number: int) -> _R:
    return row.model_copy(update={"partition": number})


def _order(model: type[GrantRow] | type[OperationRow]) -> tuple[str, ...]:
    """The columns that a page by operation_id is in the order of."""
    return tuple(dict.fromkeys(("operation_id", *model.KEY)))


def _first(order: Sequence[str], operation_id: str) -> tuple[Plain, ...]:
    """The place before all rows of an operation_id."""
    return (operation_id, *(_BEFORE_ALL if name == "partition" else "" for name in order[1:]))


def _place_of(row: _R, order: Sequence[str]) -> tuple[Plain, ...]:
    return tuple(getattr(row, name) for name in order)
