"""Charges and refunds, added up to usage figures by path, bucket and what they were for (docs/usage.md). Pure.

What a charge was for is read from its own row alone, or from that of its reservation, so that the figures can be made
again from the ledger and are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from meter.clock import DAY_MS
from meter.engine.outbox import Kind
from meter.store.records import Records
from meter.store.rows import ReservationRow, TransactionRow, WatermarkRow
from meter.store.usage import Added
from meter.store.usage_rows import UsageGapRow, UsageQuantityRow, UsageRow

VALUES_MAX = 1_000
"""Models of a path and UTC day, and features, that are told apart; all others are `other`."""
OTHER = "other"
FEATURE_MAX_CHARS = 64
MINUTE_MS = 60_000
BUCKET_MINUTES = 60
"""The default of METER_USAGE_BUCKET_MINUTES."""

CHARGED = frozenset({Kind.DEDUCT.value, Kind.COMMIT.value})
REFUND = Kind.REFUND.value


class Tags(NamedTuple):
    """What a charge was for; "" where nothing says so."""

    model: str = ""
    feature: str = ""
    key_id: str = ""
    rate_card_version: str = ""


PLAIN = Tags()

Quantities = tuple[tuple[str, int], ...]
Day = tuple[str, int]
"""A path and a UTC day."""


class Values(NamedTuple):
    """The models and features that a path has in the figures of a day."""

    models: set[str]
    features: set[str]


def feature_of(metadata: object) -> str:
    """The `feature` of metadata, if it is one: up to 64 characters that can be shown."""
    found = metadata.get("feature") if isinstance(metadata, dict) else None
    is_one = isinstance(found, str) and 0 < len(found) <= FEATURE_MAX_CHARS and found.isprintable()
    return str(found) if is_one else ""


def tags_of(
    detail: Mapping[str, object], metadata: object, reservation: ReservationRow | None
) -> tuple[Tags, Quantities]:
    """What a charge was for, and the quantities that it was priced by. What its row does not say, its reservation does:
    a charge of an amount is of the model that was asked for.
    """
    price = detail.get("price")
    held_price = None if reservation is None else reservation.price
    model = version = ""
    quantities: Quantities = ()
    if isinstance(price, str):
        card, number, model, _, _, _, *parts = price.split(",")
        version = f"{card}@{number}"
        words = [part.split("=") for part in parts]
        quantities = tuple((dimension, int(quantity)) for dimension, quantity, _ in words if quantity != "0")
    elif held_price:
        model = held_price.split(",", 3)[2]
    feature = feature_of(metadata) if metadata is not None else ""
    if not feature and reservation is not None:
        feature = reservation.feature or ""
    key_id = detail.get("key_id")
    return Tags(model, feature, "" if key_id is None else str(key_id), version), quantities


def tags_of_row(row: TransactionRow, reservation: ReservationRow | None) -> tuple[Tags, Quantities]:
    """The same of a row of the ledger."""
    return tags_of(row.detail if isinstance(row.detail, dict) else {}, row.metadata, reservation)


class Figures:
    """Adds up what happens, in the order in which it did. `values` are known for each day of a path that has tags."""

    def __init__(self, bucket_minutes: int, values: dict[Day, Values]) -> None:
        self._bucket_ms = bucket_minutes * MINUTE_MS
        self._values = values
        self._plain: dict[tuple[str, int], list[int]] = {}
        self._tagged: dict[tuple[str, int, Tags], list[int]] = {}
        self._quantities: dict[tuple[str, int, Tags, str], int] = {}

    def plain_charge(self, path: str, at_ms: int, amount: int, requests: int = 1) -> None:
        """A charge that says nothing besides; nearly all are so."""
        place = (path, at_ms - at_ms % self._bucket_ms)
        sums = self._plain.get(place)
        if sums is None:
            self._plain[place] = [requests, amount, 0]
        else:
            sums[0] += requests
            sums[1] += amount

    def charge(self, path: str, at_ms: int, amount: int, tags: Tags, quantities: Quantities, requests: int = 1) -> None:
        """A charge; it counts at its own time. `requests`: 0 where it is what another one pays of a request."""
        if tags == PLAIN:
            self.plain_charge(path, at_ms, amount, requests)
            return
        kept = self._kept(path, at_ms, tags)
        sums = self._sums(path, at_ms, kept)
        sums[0] += requests
        sums[1] += amount
        bucket = at_ms - at_ms % self._bucket_ms
        for dimension, quantity in quantities:
            place = (path, bucket, kept, dimension)
            self._quantities[place] = self._quantities.get(place, 0) + quantity

    def refund(self, path: str, at_ms: int, amount: int, tags: Tags) -> None:
        """A refund; it counts at its own time too, for what its charge was for."""
        self._sums(path, at_ms, self._kept(path, at_ms, tags))[2] += amount

    def rename(self, was: str, path: str) -> None:
        """What was added up of a path so far is another's."""
        self._plain = {(_other(at[0], was, path), at[1]): sums for at, sums in self._plain.items()}
        self._tagged = {(_other(at[0], was, path), *at[1:]): sums for at, sums in self._tagged.items()}
        self._quantities = {(_other(at[0], was, path), *at[1:]): sums for at, sums in self._quantities.items()}
        for day in [day for day in self._values if day[0] == was]:
            self._values[path, day[1]] = self._values[day]
            self._values[day] = Values(set(), set())

    def added(self) -> Added:
        """All of it, in the order of the keys: two processes never wait for each other's rows."""
        plain = [(path, bucket, *PLAIN, *sums) for (path, bucket), sums in self._plain.items()]
        tagged = [(path, bucket, *tags, *sums) for (path, bucket, tags), sums in self._tagged.items()]
        quantities = sorted(
            (path, bucket, *tags, dimension, quantity)
            for (path, bucket, tags, dimension), quantity in self._quantities.items()
        )
        return Added(Records(UsageRow, sorted(plain + tagged)), Records(UsageQuantityRow, quantities))

    def _sums(self, path: str, at_ms: int, tags: Tags) -> list[int]:
        bucket = at_ms - at_ms % self._bucket_ms
        if tags == PLAIN:
            return self._plain.setdefault((path, bucket), [0, 0, 0])
        return self._tagged.setdefault((path, bucket, tags), [0, 0, 0])

    def _kept(self, path: str, at_ms: int, tags: Tags) -> Tags:
        """The tags, or `other` in the place of a model or a feature that is one too many of its day."""
        if not (tags.model or tags.feature):
            return tags
        values = self._values.setdefault((path, at_ms // DAY_MS), Values(set(), set()))
        model, feature = _known(values.models, tags.model), _known(values.features, tags.feature)
        same = model is tags.model and feature is tags.feature
        return tags if same else tags._replace(model=model, feature=feature)


def day_of(path: str, at_ms: int) -> Day:
    """The day of a path by which its values are told apart."""
    return path, at_ms // DAY_MS


def gaps_before(expected: WatermarkRow | None) -> list[UsageGapRow]:
    """What a worker of before there were usage figures wrote, as the first flush after it finds."""
    counted = 0 if expected is None else expected.counted_seq or 0
    if expected is None or counted >= expected.seq:
        return []
    gap = UsageGapRow(partition=expected.partition, until_seq=expected.seq, after_seq=counted, from_ms=0)
    return [gap]


def values_of(found: Iterable[tuple[str, str, str]]) -> dict[str, Values]:
    """The values of each path, from (path, model, feature)."""
    values: dict[str, Values] = {}
    for path, model, feature in found:
        of_path = values.setdefault(path, Values(set(), set()))
        of_path.models.add(model)
        of_path.features.add(feature)
    for of_path in values.values():
        of_path.models.difference_update(("", OTHER))
        of_path.features.difference_update(("", OTHER))
    return values


def _known(values: set[str], value: str) -> str:
    if not value or value in values or value == OTHER:
        return value
    if len(values) >= VALUES_MAX:
        return OTHER
    values.add(value)
    return value


def _other(found: str, was: str, path: str) -> str:
    return path if found == was else found
