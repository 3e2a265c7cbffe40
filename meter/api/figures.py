"""The usage figures of `GET /credits/usage`: what was used and charged, by up to four words, in pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, timedelta

from meter.api.exports import Items, listed
from meter.api.services import Services
from meter.api.settled import is_settled
from meter.clock import DAY_MS, milliseconds, time_zone, utc_time
from meter.contract.figures import UsageFigures
from meter.contract.reports import UsageQuery
from meter.engine.prices import DIMENSIONS
from meter.http.cursors import Cursors
from meter.http.exchange import Request
from meter.http.rendered import Answered, Rendered, model_json, validation_problem
from meter.ledger.rollup import bucket_minutes_of, is_counting
from meter.ledger.usage_query import Asked, Unaligned, wanted_of
from meter.store.base import Store
from meter.store.usage import Key, UsageSum, UsageWanted

_BY_KEYS = Cursors("usage figures", r"(\[.{0,1400}\])")
_SUMS = ("requests", "charged", "refunded", "spent", *(f"quantities.{name}" for name in DIMENSIONS), "quantities")
"""Columns of CSV behind those of the words; `quantities` has dimensions of one's own, too."""


class Figures:
    """Answers questions about usage from the figures."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._scale = services.scale

    async def page(self, request: Request, query: UsageQuery) -> Rendered:
        """The figures as the request wants them. Raises `Answered`, and `Unavailable`."""
        store = self._services.catalog("reports")
        is_complete = await is_settled(self._services.engine, self._services.redis, store)
        is_complete = is_complete and not await is_counting(store)
        wanted, words = await self._wanted(store, query), query.group_by or ()
        scope = repr((words, query.path, query.from_, query.to, query.time_zone))

        async def page_from(cursor: str, limit: int) -> Items:
            place = _BY_KEYS.read(cursor, scope)
            after: Key = tuple(json.loads(place[0])) if place else ()
            found = await store.usage_sums(wanted, after, limit)
            is_full = bool(words) and len(found) == limit
            following = (
                _BY_KEYS.write(json.dumps(found[-1].key, separators=(",", ":")), scope=scope) if is_full else None
            )
            told = f',"is_complete":{"true" if is_complete else "false"}'
            return Items([self._figures(one, words) for one in found], following, told)

        return await listed("usage", request, query, (*words, *_SUMS), page_from)

    async def _wanted(self, store: Store, query: UsageQuery) -> UsageWanted:
        asked = Asked(
            query.group_by or (),
            query.path,
            None if query.from_ is None else milliseconds(query.from_),
            None if query.to is None else milliseconds(query.to),
            None if query.time_zone is None else time_zone(query.time_zone),
        )
        bucket_minutes = await bucket_minutes_of(store, self._services.settings.usage_bucket_minutes)
        wanted = wanted_of(asked, bucket_minutes, await self._span(store))
        if isinstance(wanted, Unaligned):
            set_to = self._services.settings.usage_bucket_minutes
            again = f"; it is {set_to} now: `meter rollup --from 1970-01-01` counts by that"
            reason = wanted.reason if set_to == bucket_minutes else wanted.reason + again
            raise Answered(validation_problem([(f"/{wanted.parameter}", reason)]))
        return wanted

    async def _span(self, store: Store) -> tuple[int, int]:
        """When the figures begin, and when they end at the latest."""
        first = await store.usage_sums(UsageWanted(("hour",)), (), 1)
        now_ms = await self._services.engine.now_ms()
        return (int(first[0].key[0]) if first else now_ms), now_ms + DAY_MS

    def _figures(self, one: UsageSum, words: Sequence[str]) -> str:
        credits_of = self._scale.credits
        told = {word: _told(word, part) for word, part in zip(words, one.key, strict=True)}
        figures = UsageFigures(
            **told,
            requests=one.requests,
            charged=credits_of(one.charged),
            refunded=credits_of(one.refunded),
            spent=credits_of(one.charged - one.refunded),
            quantities={name: one.quantities[name] for name in sorted(one.quantities, key=_rank)},
        )
        return model_json(figures, exclude_unset=True)


def _told(word: str, part: str | int) -> str:
    if word == "day":
        return str(date(1970, 1, 1) + timedelta(days=int(part)))
    if word == "hour":
        return f"{utc_time(int(part)):%Y-%m-%dT%H:%M:%S}.000Z"
    return str(part)


def _rank(name: str) -> tuple[int, str]:
    return (DIMENSIONS.index(name), "") if name in DIMENSIONS else (len(DIMENSIONS), name)
