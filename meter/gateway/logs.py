"""Access logs in, settled reservations out: ends the hold of each request that a delivery tells of.

A line that is wrong costs nobody else a line. What could not be decided because Redis is away is for the sender to
repeat: a settlement that was done already is answered as before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

import orjson

from meter.engine.answers import NOT_FOUND, subject_of, word_of
from meter.engine.engine import Engine
from meter.engine.operations import Operation
from meter.errors import MeterError
from meter.gateway.counts import SETTLED, GatewayCounts, Way, Word
from meter.gateway.entries import BadEntry, TooLarge, entries_of, unpacked
from meter.gateway.ids import ReservationNames
from meter.gateway.settlement import SettlementRules, Told, afterwards
from meter.gateway.sources import SOURCES, Source, read_entry
from meter.http.exchange import Request
from meter.http.rendered import Answered, Rendered, problem, validation_problem
from meter.log import logger

ENTRIES_PER_TURN = 10
"""Entries that are read before others get their turn on the event loop."""


_log = logger("meter.gateway")


@dataclass(slots=True)
class Delivered:
    """What became of the entries of a delivery."""

    accepted: int = 0
    """Reservations that are settled, now or by the same word before."""
    ignored: int = 0
    """About no metered request, or about one that was settled otherwise before."""
    failed: int = 0
    """Not readable, or about a reservation that nobody knows."""

    def count(self, word: Word) -> None:
        """Counts what became of a settlement."""
        if word in SETTLED:
            self.accepted += 1
        elif word == "ended":
            self.ignored += 1
        else:
            self.failed += 1


class AccessLogs:
    """`/gateway/logs`, and the reading of single entries."""

    def __init__(
        self,
        engine: Engine,
        rules: SettlementRules,
        counts: GatewayCounts,
        *,
        names: ReservationNames,
        bytes_max: int,
        batch_max: int,
    ) -> None:
        self._engine = engine
        self._counts = counts
        self._rules = rules
        self._names = names
        self._bytes_max = bytes_max
        self._batch_max = batch_max

    async def logs(self, request: Request) -> Rendered:
        """`POST /gateway/logs?source=nginx`; 202, however many of the entries were wrong."""
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        source = SOURCES.get(query.pop("source", "meter"))
        if source is None or query:
            raise Answered(validation_problem([("/source", f"must be one of {', '.join(SOURCES)}")]))
        encoding = request.headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
        delivered = Delivered()
        try:
            settlements = await self._read(unpacked(request.body, encoding, self._bytes_max), source, delivered)
        except TooLarge as error:
            raise Answered(problem("body-too-large", f"The delivery has {error}; send several.")) from None
        except ValueError as error:
            raise Answered(problem("unsupported-media-type", f"Send JSON, plain or gzip: {error}.")) from None
        await self._settle(settlements, delivered)
        return Rendered(202, orjson.dumps(delivered))

    def settlement(
        self, entry: object, source: Source, way: Way, delivered: Delivered | None = None
    ) -> Operation | None:
        """The settlement that an entry asks for; None, and counted, when it asks for none."""
        delivered = delivered or Delivered()
        try:
            if isinstance(entry, BadEntry):
                raise entry
            told = read_entry(source, entry)
        except BadEntry as error:
            if not delivered.failed:  # one line a delivery, however many are bad
                _log.warning("an entry of an access log was not taken", way=way, why=f"it {error}")
            delivered.failed += 1
            self._counts.entry(way, "malformed")
            return None
        if told is None:
            delivered.ignored += 1
            self._counts.entry(way, "ignored")
            return None
        self._counts.entry(way, "read")
        return self._rules.settlement_of(self._reservation_id(told), told.outcome, way)

    async def _read(self, text: bytes, source: Source, delivered: Delivered) -> list[Operation]:
        """All settlements of a delivery: one that is too large settles nothing. Raises `TooLarge`."""
        settlements = []
        for number, entry in enumerate(entries_of(text)):
            if number % ENTRIES_PER_TURN == 0:
                await asyncio.sleep(0)
            settlement = self.settlement(entry, source, "logs", delivered)
            if settlement is not None:
                settlements.append(settlement)
        return settlements

    async def _settle(self, settlements: Sequence[Operation], delivered: Delivered) -> None:
        """Settles a delivery. Raises `Unavailable` when some of it was not decided."""
        by_partition: dict[int | None, list[Operation]] = {}
        for settlement in settlements:
            partition = self._engine.partition_named_by(subject_of(settlement))
            by_partition.setdefault(partition, []).append(settlement)
        runs = [self._run(partition, batch) for partition, batch in by_partition.items()]
        answers = await asyncio.gather(*runs, return_exceptions=True)
        for batch, answered in zip(by_partition.values(), answers, strict=True):
            if isinstance(answered, MeterError):
                for settlement in batch:
                    self._counts.settled("logs", settlement, answered)
            elif not isinstance(answered, BaseException):
                for settlement, line in zip(batch, answered, strict=True):
                    delivered.count(await self._done(settlement, line))
        for answered in answers:
            if isinstance(answered, BaseException):
                raise answered

    async def _done(self, settlement: Operation, line: str) -> Word:
        while (otherwise := self._rules.otherwise(settlement, line)) is not None:
            settlement, line = otherwise, await self._engine.run_for_reservation(subject_of(otherwise), otherwise)
        word = self._counts.settled("logs", settlement, line)
        return await self._afterwards(settlement, line) or word

    async def _afterwards(self, settlement: Operation, line: str) -> Word | None:
        """What became of the charge of a hold that was given back before; None where there is none to make."""
        charge = afterwards(settlement, line)
        if charge is None:
            return None
        return self._counts.settled("logs", charge, await self._engine.run(subject_of(charge), charge))

    def _reservation_id(self, told: Told) -> str:
        if told.reservation_id:
            return told.reservation_id
        return self._names.of(str(told.user_id), str(told.request_id))

    async def _run(self, partition: int | None, batch: Sequence[Operation]) -> list[str]:
        if partition is None:  # ids that their callers chose: each is searched for
            return [await self._engine.run_for_reservation(subject_of(one), one) for one in batch]
        lines: list[str] = []
        for at in range(0, len(batch), self._batch_max):
            lines += await self._engine.run_many(partition, batch[at : at + self._batch_max])
        if self._engine.opening.before:  # what is not there may be there under its name of before
            for at, line in enumerate(lines):
                if word_of(line) == NOT_FOUND.word:
                    lines[at] = await self._engine.run_for_reservation(subject_of(batch[at]), batch[at])
        return lines
