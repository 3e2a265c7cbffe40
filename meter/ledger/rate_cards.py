"""Rate cards from the store to Redis: durable first, then into every partition, then marked as applied.

What Redis is told is how the card stands as a whole, under the number of its last change: told twice, or by two
processes at once, it is the same. Lines come before the activation that needs them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, cast

from meter.engine import upkeep
from meter.engine.engine import Engine
from meter.engine.operations import Operation
from meter.engine.prices import Activation, RateLine, Tier, activations_text, rate_fields
from meter.store.catalog import Catalog
from meter.store.rows import ActivationRow, RateCardRow, RateCardVersionRow

APPLIED, DUE = "applied", "due"
FIELDS_PER_OPERATION = 200
PAGE = 100


async def apply_card(engine: Engine, store: Catalog, row: RateCardRow) -> None:
    """Lets every partition have a card as the store has it. Raises `Unavailable`: then the sweep does it again."""
    activations = await activations_of(store, row.rate_card_id)
    for number in range(len(engine.partitions)):
        now_ms = await engine.now_ms(number)
        versions = await _named(store, row, activations, now_ms)
        for one in _operations(row, versions, activations, now_ms):
            await engine.run_many(number, [one])
    applied = row.model_copy(update={"state": APPLIED, "version": row.version + 1})
    if row.state == DUE:
        await store.swap(applied)  # False: it was changed meanwhile, and its own change is applied by whoever made it


async def apply_due(engine: Engine, store: Catalog) -> int:
    """Applies the cards that a process left half done, and answers how many there were. Raises `Unavailable`."""
    rows = await store.find(RateCardRow, {"state": DUE}, order_by="rate_card_id", limit=PAGE)
    for row in rows:
        await apply_card(engine, store, row)
    return len(rows)


async def restore_operations(store: Catalog, now_ms: int) -> list[Operation]:
    """The operations by which an empty partition has every version of every card again."""
    many: list[Operation] = []
    async for row in _cards(store):
        versions = await _versions(store, row.rate_card_id)
        many += _operations(row, versions, await activations_of(store, row.rate_card_id), now_ms)
    return many


async def activations_of(store: Catalog, rate_card_id: str) -> list[Activation]:
    """The activations of a card, in the order in which they were asked for."""
    found: list[ActivationRow] = []
    equal, after = {"rate_card_id": rate_card_id}, None
    while page := await store.find(ActivationRow, equal, order_by="number", after=after, limit=PAGE):
        found += page
        after = (page[-1].number, rate_card_id)
    return [Activation(row.rate_card_version, row.effective_at_ms) for row in found]


def lines_of(body: object) -> dict[str, RateLine]:
    """The lines of a version by each name of a model, from what the store keeps of it."""
    kept = cast("dict[str, Any]", body)
    lines: dict[str, RateLine] = {}
    for model, told in kept["models"].items():
        above = told.get("above_input")
        line = RateLine(
            told.get("rates", {}),
            per_request=kept.get("per_request", 0),
            minimum=kept.get("minimum", 0),
            max_output=told.get("max_output", 0),
            above=None if above is None else Tier(above["over"], above["rates"]),
            free=told.get("free", False),
        )
        lines |= dict.fromkeys((model, *told.get("aliases", ())), line)
    return lines


def aliases_of(body: object) -> dict[str, str]:
    """The models that the other names of a version mean."""
    kept = cast("dict[str, Any]", body)
    return {alias: model for model, told in kept["models"].items() for alias in told.get("aliases", ())}


def _operations(
    row: RateCardRow, versions: Sequence[RateCardVersionRow], activations: Sequence[Activation], now_ms: int
) -> Iterator[Operation]:
    for version in versions:
        fields = list(rate_fields(row.rate_card_id, version.number, _lines(version), aliases_of(version.body)))
        for first in range(0, len(fields), FIELDS_PER_OPERATION):
            yield upkeep.rates(fields[first : first + FIELDS_PER_OPERATION])
    yield upkeep.activate(row.rate_card_id, row.version, activations_text(activations, now_ms))


async def _named(
    store: Catalog, row: RateCardRow, activations: Sequence[Activation], now_ms: int
) -> list[RateCardVersionRow]:
    """The versions that are active or to come: whoever made one may have died before Redis had its lines."""
    numbers = {int(number) for number in activations_text(activations, now_ms).split()[::2]} | {row.latest}
    found = [await store.get(RateCardVersionRow, row.rate_card_id, number) for number in sorted(numbers)]
    return [version for version in found if version is not None]


def _lines(version: RateCardVersionRow) -> Mapping[str, RateLine]:
    return lines_of(version.body)


async def _versions(store: Catalog, rate_card_id: str) -> list[RateCardVersionRow]:
    found: list[RateCardVersionRow] = []
    equal, after = {"rate_card_id": rate_card_id}, None
    while page := await store.find(RateCardVersionRow, equal, order_by="number", after=after, limit=PAGE):
        found += page
        after = (page[-1].number, rate_card_id)
    return found


async def _cards(store: Catalog) -> AsyncIterator[RateCardRow]:
    after = None
    while page := await store.find(RateCardRow, {}, order_by="rate_card_id", after=after, limit=PAGE):
        for row in page:
            yield row
        after = (page[-1].rate_card_id,)
