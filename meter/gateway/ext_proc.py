"""Envoy's external processing (ext_proc) over gRPC: one stream per request sees its headers, and its response pass.

Reserves at the request's headers, reads usage from the response's chunks, and settles at the stream's end, whoever
ended it. Needs grpcio (`pip install meter-sidecar[grpc]`), which is imported when a listener starts.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from importlib import import_module
from typing import Any

from meter.charging.policy import Ending
from meter.errors import ConfigError
from meter.gateway.headers import ACTUAL, RESERVATION
from meter.gateway.protobuf import bytes_field, fields_of, number_field
from meter.gateway.settlement import (
    FAILED_STATUS,
    GatewaySettlements,
    Outcome,
    SettlementRules,
    read_status,
    read_usage,
)
from meter.http.exchange import Coroutine, Request
from meter.http.rendered import Rendered
from meter.http.request_id import named, request_id_of
from meter.usage import Format, Number, Reader, open_reader, shape_of

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
STOP_SECONDS = 2.0

# Fields of ProcessingRequest, and of ProcessingResponse in answer to them.
_REQUEST_HEADERS, _RESPONSE_HEADERS, _RESPONSE_BODY, _RESPONSE_TRAILERS = 2, 3, 5, 7
_ANSWERS = {2: 1, 3: 2, 4: 3, 5: 4, 6: 5, 7: 6}
_IMMEDIATE = 7
_OVERWRITE = 2
_REMAINING = b"x-credits-remaining"
_LIMITS = (b"ratelimit-policy", b"ratelimit")
_NO_QUALITY = re.compile(rb"q\s*=\s*0(?:\.0*)?")
_PATH = {"rest": ""}
"""Whatever the client's path and query are, they choose nothing."""

Headers = Mapping[bytes, bytes]


class ExternalProcessor:
    """`async with` it: listens on `127.0.0.1:9515`. Raises `ConfigError` without grpcio."""

    def __init__(
        self, address: str, authorize: Coroutine, rules: SettlementRules, settlements: GatewaySettlements
    ) -> None:
        self._address = address
        self._authorize = authorize
        self._rules = rules
        self._settlements = settlements
        self._server: Any = None
        self._shape = shape_of(Format.AUTO)

    async def __aenter__(self) -> ExternalProcessor:
        try:
            grpc: Any = import_module("grpc")
            aio: Any = import_module("grpc.aio")
        except ImportError:
            raise ConfigError("METER_EXT_PROC needs grpcio: pip install meter-sidecar[grpc]") from None
        self._server = aio.server()
        process = grpc.stream_stream_rpc_method_handler(self.process)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Process": process}),))
        self._server.add_insecure_port(self._address)
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(STOP_SECONDS)

    async def process(self, messages: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        """One request of Envoy's: its messages in, an answer to each out."""
        metered: _Metered | None = None
        try:
            async for message in messages:
                for number, part in fields_of(message):
                    if number not in _ANSWERS or not isinstance(part, bytes):
                        continue
                    if number == _REQUEST_HEADERS:
                        headers = _headers(part)
                        rendered = await self._authorize(Request(_PATH, "", headers))
                        if rendered.status != 200:
                            yield _refusal(named(rendered, request_id_of(headers.items())))
                            return
                        told = dict(rendered.headers)
                        limits = tuple((name, told[name]) for name in _LIMITS if name in told)
                        metered = _Metered(told[RESERVATION].decode(), ((_REMAINING, told[_REMAINING]), *limits))
                        # What the upstream may choose is what both the client and our reader can decode.
                        encoding = b"gzip" if accepts_gzip(headers.get(b"accept-encoding", b"")) else b"identity"
                        changes = [(RESERVATION, told[RESERVATION]), (b"accept-encoding", encoding)]
                        yield _answer(number, set_=changes)
                    elif number == _RESPONSE_HEADERS and metered is not None:
                        headers = _headers(part)
                        metered.respond(headers, self._reader(headers), whole=(3, 1) in fields_of(part))
                        yield _answer(number, set_=metered.told, remove=[ACTUAL])
                    else:
                        if number in (_RESPONSE_BODY, _RESPONSE_TRAILERS) and metered is not None:
                            if number == _RESPONSE_BODY:
                                metered.see(part)
                            else:
                                metered.trail(_headers(part))
                        yield _answer(number)
        finally:
            if metered is not None and metered.reservation_id:
                settlement = self._rules.settlement_of(metered.reservation_id, metered.outcome(), "ext_proc")
                self._settlements.settle(settlement, "ext_proc")

    def _reader(self, headers: Headers) -> Reader:
        encoding = headers.get(b"content-encoding")
        return open_reader(
            self._shape,
            content_encoding=None if encoding is None else encoding.decode("latin-1"),
            headers=headers.items(),
        )


class _Metered:
    """A request that was allowed, and what was seen of its response."""

    def __init__(self, reservation_id: str, told: tuple[tuple[bytes, bytes], ...]) -> None:
        """`told`: the headers that the response brings the client."""
        self.reservation_id = reservation_id
        self.told = told
        self._status: int | None = None
        self._actual: Number | None = None
        self._reader: Reader | None = None
        self._whole = False

    def respond(self, headers: Headers, reader: Reader, *, whole: bool) -> None:
        """The response starts."""
        self._status = read_status(headers.get(b":status", b"").decode("latin-1"))
        told = headers.get(ACTUAL)
        self._actual = read_usage(told.decode("latin-1")) if told else None
        self._reader = reader
        self._whole = whole

    def trail(self, trailers: Headers) -> None:
        """The response ends by trailers, which tell what its headers could not know yet."""
        self._whole = True
        told = trailers.get(ACTUAL)
        if told and not self._actual:
            self._actual = read_usage(told.decode("latin-1"))

    def see(self, part: bytes) -> None:
        """A chunk of the response passes."""
        for number, value in fields_of(part):
            if number == 1 and isinstance(value, bytes) and self._reader is not None:
                self._reader.feed(value)
            elif number == 2 and value:
                self._whole = True

    def outcome(self) -> Outcome:
        """How the request ended."""
        usage, status, told = self._actual, self._status, None
        if not usage and self._reader is not None:
            self._reader.finish()
            if self._reader.usage is not None:
                told = self._reader.usage
                usage = told.total
            elif usage is None and self._reader.failed:
                status = FAILED_STATUS
        return Outcome(status, usage, Ending.CLEAN if self._whole else Ending.GONE, told)


def accepts_gzip(accepted: bytes) -> bool:
    """Whether gzip is among the accepted codings, and not by a quality of 0 (RFC 9110, 12.5.3)."""
    for coding in accepted.lower().split(b","):
        name, *parameters = (part.strip() for part in coding.split(b";"))
        if name in (b"gzip", b"x-gzip"):
            return not any(_NO_QUALITY.fullmatch(parameter) for parameter in parameters)
    return False


def _headers(part: bytes) -> dict[bytes, bytes]:
    """The headers of an HttpHeaders message; one that is there twice is joined by a comma."""
    headers: dict[bytes, bytes] = {}
    for number, mapped in fields_of(part):
        if number != 1 or not isinstance(mapped, bytes):
            continue
        for _, pair in fields_of(mapped):
            found = dict(fields_of(pair)) if isinstance(pair, bytes) else {}
            name, value = found.get(1, b""), found.get(3) or found.get(2, b"")
            if isinstance(name, bytes) and isinstance(value, bytes):
                headers[name] = headers[name] + b", " + value if name in headers else value
    return headers


def _answer(number: int, set_: Iterable[tuple[bytes, bytes]] = (), remove: Iterable[bytes] = ()) -> bytes:
    """Go on, with these changes of the headers."""
    mutation = _mutation(set_, remove)
    common = bytes_field(2, mutation) if mutation else b""
    return bytes_field(_ANSWERS[number], bytes_field(1, common))


def _refusal(rendered: Rendered) -> bytes:
    """Answer the client at once."""
    told = [(name, value) for name, value in rendered.headers if name != RESERVATION]
    if rendered.status == 503:
        told.append((b"retry-after", b"1"))
    mutation = _mutation([(b"content-type", rendered.content_type), *told], ())
    status = bytes_field(1, number_field(1, rendered.status))
    return bytes_field(_IMMEDIATE, status + bytes_field(2, mutation) + bytes_field(3, rendered.body))


def _mutation(set_: Iterable[tuple[bytes, bytes]], remove: Iterable[bytes]) -> bytes:
    options = (
        bytes_field(1, bytes_field(1, name) + bytes_field(3, value)) + number_field(3, _OVERWRITE)
        for name, value in set_
    )
    return b"".join(bytes_field(1, option) for option in options) + b"".join(bytes_field(2, name) for name in remove)
