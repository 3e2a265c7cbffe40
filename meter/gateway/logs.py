"""Access logs in, settled reservations out: decodes a delivery, and ends the hold of each request that it tells of.

A line that is wrong costs nobody else a line. What could not be decided because Redis is away is for the sender to
repeat: a settlement that was done already is answered as before.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal

from meter.engine.engine import Engine
from meter.engine.operations import Operation
from meter.errors import MeterError
from meter.gateway.counts import GatewayTally, Way
from meter.gateway.ids import reservation_id_of
from meter.gateway.settlement import Settlement, Told
from meter.gateway.sources import BadEntry, Source, read_entry

ENTRIES_MAX = 1000


class TooLarge(ValueError):
    """A delivery of more bytes or entries than one may have."""


@dataclass(slots=True)
class Outcome:
    """What became of the entries of a delivery."""

    accepted: int = 0
    """Reservations that are settled, now or by the same word before."""
    ignored: int = 0
    """About no metered request, or about one that was settled otherwise before."""
    failed: int = 0
    """Not readable, or about a reservation that nobody knows."""

    def count(self, line: str) -> None:
        """Counts the answer to a settlement."""
        word = line.split(" ", 2)[1]
        if word == "ok":
            self.accepted += 1
        elif word == "finished":
            self.ignored += 1
        else:
            self.failed += 1


def unpacked(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """The body of a delivery. Raises `TooLarge`, and ValueError for what is no gzip."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise ValueError(f"the content-encoding {encoding} is not known here")
    stream = zlib.decompressobj(47)
    try:
        data = stream.decompress(body, bytes_max + 1)
    except zlib.error:
        raise ValueError("the body is not what its content-encoding says") from None
    if len(data) > bytes_max:
        raise TooLarge(f"more than {bytes_max} bytes when unpacked")
    if not stream.eof:
        raise ValueError("the compressed body is cut off")
    return data


def entries_of(text: bytes) -> list[object]:
    """The entries of a JSON array, of one object, or of one per line; `BadEntry` for each that cannot be read.

    Raises `TooLarge`.
    """
    try:
        whole = _parsed(text)
        found = whole if isinstance(whole, list) else [whole]
    except ValueError:
        found = [_line(line) for line in text.splitlines() if line.strip()]
    if len(found) > ENTRIES_MAX:
        raise TooLarge(f"more than {ENTRIES_MAX} entries")
    return found


class Intake:
    """Settles what entries tell of."""

    def __init__(
        self, engine: Engine, settlement: Settlement, tally: GatewayTally, *, secret: bytes, batch_max: int
    ) -> None:
        self._engine = engine
        self._tally = tally
        self._settlement = settlement
        self._secret = secret
        self._batch_max = batch_max

    async def take(self, entries: Iterable[object], source: Source) -> Outcome:
        """Settles a delivery. Raises `Unavailable` when some of it was not decided."""
        outcome = Outcome()
        by_partition: dict[int | None, list[Operation]] = {}
        for entry in entries:
            one = self.operation(entry, source, outcome, "logs")
            if one is not None:
                by_partition.setdefault(self._engine.partition_named_by(one[4]), []).append(one)
        runs = [self._run(partition, many) for partition, many in by_partition.items()]
        answers = await asyncio.gather(*runs, return_exceptions=True)
        for many, answered in zip(by_partition.values(), answers, strict=True):
            if isinstance(answered, MeterError):
                for one in many:
                    self._tally.settled("logs", one, answered)
            elif not isinstance(answered, BaseException):
                for one, line in zip(many, answered, strict=True):
                    outcome.count(line)
                    self._tally.settled("logs", one, line)
        for answered in answers:
            if isinstance(answered, BaseException):
                raise answered
        return outcome

    def operation(self, entry: object, source: Source, outcome: Outcome, way: Way) -> Operation | None:
        """The settlement that an entry asks for; None, and counted, when it asks for none."""
        try:
            if isinstance(entry, BadEntry):
                raise entry
            told = read_entry(source, entry)
        except BadEntry:
            outcome.failed += 1
            self._tally.entry(way, "malformed")
            return None
        if told is None:
            outcome.ignored += 1
            self._tally.entry(way, "ignored")
            return None
        self._tally.entry(way, "read")
        return self._settlement.operation(self._reservation_id(told), told.exchange, way)

    def _reservation_id(self, told: Told) -> str:
        if told.reservation_id:
            return told.reservation_id
        user_id, request_id = str(told.user_id), str(told.request_id)
        partition = self._engine.partition_of(user_id)
        return reservation_id_of(user_id, request_id, partition=partition, secret=self._secret)

    async def _run(self, partition: int | None, many: Sequence[Operation]) -> list[str]:
        if partition is None:  # ids that their callers chose: each is searched for
            return [await self._engine.run_for_reservation(one[4], one) for one in many]
        lines: list[str] = []
        for at in range(0, len(many), self._batch_max):
            lines += await self._engine.run_many(partition, many[at : at + self._batch_max])
        return lines


def _parsed(text: bytes) -> object:
    # orjson would read a long number as a float; usage is exact.
    return json.loads(text, parse_float=Decimal)


def _line(line: bytes) -> object:
    try:
        return _parsed(line)
    except ValueError:
        return BadEntry("is not JSON")
