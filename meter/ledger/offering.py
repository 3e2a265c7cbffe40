"""What a process was told is done is offered back when Redis has lost it, and what nobody could take is told of.

The watch sees a partition once a second. While it is served, what the store has is forgotten here; while it is not,
the rest is offered (meter/engine/offers.py), and the rebuild books what neither Redis nor the store has before it opens
the partition again (meter/ledger/offered.py).
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import NamedTuple

from meter.engine.engine import Engine
from meter.engine.offers import Offers
from meter.engine.redis import PartitionState, RedisGateway
from meter.errors import StoreUnavailable
from meter.ledger.offered import described, missing
from meter.log import logger
from meter.store.base import Store

SHOWN_MAX = 20
"""Transactions that a line of the log names."""

_log = logger("meter.ledger.offering")


class _Made(NamedTuple):
    """The fields of an offer, and how many operations it was made of."""

    fields: list[str]
    operations: int


class Offering:
    """Of one process: `see` is told of each partition as often as somebody looks."""

    def __init__(self, engine: Engine, redis: RedisGateway, store: Store) -> None:
        self._engine = engine
        self._store = store
        self._name = secrets.token_hex(8)
        self._offers = [Offers(redis, keys) for keys in engine.partitions]
        self._made: dict[int, _Made] = {}
        engine.keep_acknowledged()

    async def see(self, number: int, state: PartitionState | None) -> None:
        """Offers what is acknowledged, or forgets what the store has. Raises `RedisUnavailable`."""
        if state is None or state.state != "open":
            await self._offer(number)
        else:
            with suppress(StoreUnavailable):  # the next look asks again
                await self._end(number, state)

    async def _offer(self, number: int) -> None:
        told, made = self._engine.acknowledged(number), self._made.get(number)
        if len(told) == (made.operations if made else 0):
            return
        entries = told.entries()
        _log.warning("offers back what was acknowledged", partition=number, transactions=len(entries))
        self._made[number] = _Made(await self._offers[number].put(self._name, entries), len(told))

    async def _end(self, number: int, state: PartitionState) -> None:
        told, made = self._engine.acknowledged(number), self._made.get(number)
        if len(told) and told.epoch < state.epoch:
            before = [entry for entry in told.entries() if entry.epoch < state.epoch]
            gone = await missing(self._store, before)
            if gone:
                named = [described(entry) for entry in gone[:SHOWN_MAX]]
                _log.error("acknowledged, and gone", partition=number, transactions=len(gone), first=named)
        if made is not None:
            await self._offers[number].take_away(made.fields)
            del self._made[number]
        told.forget(state.epoch, state.flushed)
