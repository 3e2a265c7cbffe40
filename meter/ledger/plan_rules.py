"""What plans say of rules: the store has it in the subscription, Redis in the rules of the account, and beside them
what waits behind rules of its own (lua/state/plan_rules.lua). A rebuild tells it again, a reconciliation compares it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from zoneinfo import ZoneInfo

from meter.clock import UnknownTimeZone, period_start_ms, time_zone
from meter.engine import upkeep
from meter.engine.operations import Operation
from meter.engine.rules import NO_PLAN_RULES, zones_in
from meter.keys import partition_of
from meter.ledger.plan_prices import lasting
from meter.store.catalog import Catalog
from meter.store.plan_rows import SubscriptionRow

OF_USER = "p "
"""What the field of an account begins with."""
BOUNDS_TOLD = 60
"""How many periods Redis is told of ahead, for budgets by the period; again when half of them are over."""


def rules_of(row: SubscriptionRow) -> str:
    """What its plan says of rules now: nothing behind its end."""
    return NO_PLAN_RULES if row.state == "ended" or row.rules is None else row.rules


def bounds_of(row: SubscriptionRow, zone: ZoneInfo) -> list[int]:
    """When its periods begin, from the current one on, and the last that is told ends."""
    known = {row.period_started_at_ms, row.next_period_at_ms}
    if row.billing_period is not None:
        numbers = range(row.period, row.period + BOUNDS_TOLD)
        known |= {period_start_ms(row.anchor_at_ms, row.billing_period, number, zone) for number in numbers}
    return sorted(known)


def telling_of(row: SubscriptionRow) -> list[Operation]:
    """The operations that tell Redis of a subscription."""
    try:
        bounds = bounds_of(row, time_zone(row.time_zone))
    except UnknownTimeZone:
        bounds = [row.period_started_at_ms, row.next_period_at_ms]
    return telling(row.user_id, row.plan_group, row.version, rules_of(row), bounds)


async def restore_rules(store: Catalog, number: int, partitions: int) -> AsyncIterator[list[Operation]]:
    """The operations by which a rebuilt partition has it again, behind its accounts. Raises `StoreUnavailable`."""
    async for row in lasting(store):
        if (row.rules is not None) and partition_of(row.user_id, partitions) == number:
            yield telling_of(row)


async def subscriptions_with_rules(store: Catalog) -> AsyncIterator[SubscriptionRow]:
    """The subscriptions that last and whose plans say something of rules. Raises `StoreUnavailable`."""
    async for row in lasting(store):
        if row.rules is not None:
            yield row


def telling(user_id: str, group: str, version: int, rules: str, bounds: Sequence[int]) -> list[Operation]:
    """The operations that tell Redis of it, behind the calendars that budgets need."""
    zones = sorted(zones_in(rules))
    calendars = [upkeep.calendars(zones)] if zones else []
    return [*calendars, upkeep.plan_rules(user_id, group, version, rules, bounds)]


def words_in(text: str) -> tuple[str, ...]:
    """What Redis keeps of plans that say something, by group, without versions and periods."""
    found = (group.split(" ") for group in text.split("|"))
    said = ((group, f"{budgets} {limits}") for group, _, budgets, limits, _ in found)
    return tuple(sorted(f"{group} {rules}" for group, rules in said if rules != NO_PLAN_RULES))
