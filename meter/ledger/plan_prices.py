"""What plans say of prices: the store has it in the subscription, Redis behind what an account says itself
(lua/state/rates.lua). Subscriptions tell it when they change; a rebuild puts it back, and a reconciliation compares it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from meter.engine import upkeep
from meter.engine.answers import NOTHING
from meter.engine.operations import Operation
from meter.keys import partition_of
from meter.store.catalog import Catalog
from meter.store.plan_rows import NO_PRICES, SubscriptionRow

PER_PAGE = 500
OF_USER = "u "
"""What the field of an account begins with."""
_LASTING = ("active", "set_aside")


async def restore_prices(store: Catalog, number: int, partitions: int) -> AsyncIterator[Operation]:
    """The operations by which an empty partition has them again, behind its accounts. Raises `StoreUnavailable`."""
    async for row in subscriptions_with_prices(store):
        if partition_of(row.user_id, partitions) == number:
            yield upkeep.plan_prices(row.user_id, row.plan_group, row.version, *row.prices)


async def subscriptions_with_prices(store: Catalog) -> AsyncIterator[SubscriptionRow]:
    """The subscriptions that last and whose plans say something of prices. Raises `StoreUnavailable`."""
    async for row in lasting(store):
        if row.prices != NO_PRICES:
            yield row


async def lasting(store: Catalog) -> AsyncIterator[SubscriptionRow]:
    """The subscriptions that last. Raises `StoreUnavailable`."""
    for state in _LASTING:
        after = None
        while page := await store.find(
            SubscriptionRow, {"state": state}, order_by="user_id", after=after, limit=PER_PAGE
        ):
            for row in page:
                yield row
            after = (page[-1].user_id, page[-1].plan_group)


def word_of(row: SubscriptionRow) -> str:
    """What Redis keeps of it, without the version."""
    card, multiplier, until_ms = row.prices
    return f"{row.plan_group},{card or NOTHING},{multiplier or NOTHING},{until_ms}"


def words_in(text: str) -> tuple[str, ...]:
    """The same of all plans of an account, from what Redis keeps of it; but for those that say nothing any more."""
    found = (word.split(",") for word in text.split(" ")[2:])
    said = ((group, card, multiplier, until_ms) for group, _, card, multiplier, until_ms in found)
    return tuple(sorted(",".join(one) for one in said if one[1:3] != (NOTHING, NOTHING)))
