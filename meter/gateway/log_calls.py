"""Logs that gateways post."""

from __future__ import annotations

from urllib.parse import parse_qsl

import orjson

from meter.gateway.logs import Intake, TooLarge, entries_of, unpacked
from meter.gateway.sources import SOURCES
from meter.http.exchange import Request
from meter.http.rendered import Answered, Rendered, problem, validation_problem


class LogHandler:
    """`/gateway/logs`: access logs, settled in batches."""

    def __init__(self, intake: Intake, bytes_max: int) -> None:
        self._intake = intake
        self._bytes_max = bytes_max

    async def logs(self, request: Request) -> Rendered:
        """`POST /gateway/logs?source=nginx`; 202, however many of the entries were wrong."""
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        source = SOURCES.get(query.pop("source", "meter"))
        if source is None or query:
            raise Answered(validation_problem([("/source", f"must be one of {', '.join(SOURCES)}")]))
        encoding = request.headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
        try:
            text = unpacked(request.body, encoding, self._bytes_max)
            entries = entries_of(text)
        except TooLarge as error:
            raise Answered(problem("body-too-large", f"The delivery has {error}; send several.")) from None
        except ValueError as error:
            raise Answered(problem("unsupported-media-type", f"Send JSON, plain or gzip: {error}.")) from None
        outcome = await self._intake.take(entries, source)
        return Rendered(202, orjson.dumps(outcome))
