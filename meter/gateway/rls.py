"""Envoy's rate limit service (RLS v3, `ShouldRateLimit`) over gRPC: credits in the place of limits (docs/gateways.md).

A call names descriptors, each a list of entries and the hits that it adds. The entries tell user, model and request, by
keys that a file maps (meter/gateway/rls_map.py). No hits ask whether the user may spend at all; hits that were used are
charged as far as credits and debt go, whatever rules say now; hits that are asked for are charged whole or refused.
Needs grpcio (`pip install meter-sidecar[grpc]`), which is imported when a listener starts.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

from meter.api.rule_text import standing_headers
from meter.api.services import Services
from meter.charging.models import all_names
from meter.config import Settings
from meter.contract.rate_headers import Headers
from meter.contract.usage import QUANTITY_MAX
from meter.engine import operations, priced
from meter.engine.answers import Line, is_ok
from meter.engine.behind import read_behind
from meter.engine.operations import DEDUCT, EXPLAIN, Asked, Operation
from meter.engine.priced import DEDUCT_USAGE, QUOTE
from meter.engine.prices import usage_text
from meter.engine.rules import read_rate
from meter.errors import ConfigError, Unavailable
from meter.gateway.protobuf import bytes_field, fields_of, number_field
from meter.gateway.rls_map import Described, RlsMap, load_map
from meter.http.rendered import Rendered, problem
from meter.keys import REQUEST_ID, USER_ID
from meter.log import logger

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
STOP_SECONDS = 2.0
RETRY_SECONDS_FIRST, RETRY_SECONDS_MAX, RETRIES_MAX = 0.2, 10.0, 60
"""What was used is charged when Redis is back, within about ten minutes: Envoy does not ask again."""
_OK, _OVER_LIMIT = 1, 2
_LEFT_MAX = 2**32 - 1

_log = logger("meter.gateway.rls")


class Verdict(NamedTuple):
    """`refused` None: let through; `left` are credits; `headers` tell where the tightest rate limit stands."""

    refused: Rendered | None
    left: int = 0
    headers: Headers = ()


class RateLimitService:
    """`async with` it: listens on `127.0.0.1:9516`. Raises `ConfigError` without grpcio, and for a map that cannot be
    read.
    """

    def __init__(self, settings: Settings, services: Services) -> None:
        self._address = settings.rls
        self._map: RlsMap = load_map(settings.rls_file)
        self._engine = services.engine
        self._scale = services.scale
        self._render = services.renderer.render
        self._prices = settings.gateway_charge_by == "auto"
        self._least = services.scale.units(settings.gateway_estimate_minimum)
        self._seconds = settings.gateway_timeout_ms / 1000
        self._late: set[asyncio.Task[None]] = set()
        self._server: Any = None
        self._unavailable: Any = None

    async def __aenter__(self) -> RateLimitService:
        try:
            grpc: Any = import_module("grpc")
            aio: Any = import_module("grpc.aio")
        except ImportError:
            raise ConfigError("METER_RLS needs grpcio: pip install meter-sidecar[grpc]") from None
        self._unavailable = grpc.StatusCode.UNAVAILABLE
        self._server = aio.server()
        handler = grpc.unary_unary_rpc_method_handler(self.should_rate_limit)
        table = grpc.method_handlers_generic_handler(SERVICE, {"ShouldRateLimit": handler})
        self._server.add_generic_rpc_handlers((table,))
        self._server.add_insecure_port(self._address)
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(STOP_SECONDS)
        await self.close()

    async def close(self) -> None:
        """What was used and is not charged yet has a little time left."""
        if self._late:
            await asyncio.wait(self._late, timeout=STOP_SECONDS)

    async def should_rate_limit(self, message: bytes, context: Any) -> bytes:
        """One call of Envoy's: its request in, the answer out. A call that nobody could decide fails as unavailable."""
        described = [self._map.read(one) for one in descriptors_in(message)]
        asks = dict.fromkeys(one for one in described if one is not None)
        most = {ask.name: ask for ask in sorted(asks, key=lambda ask: ask.hits)}  # one request is charged once a name
        try:
            verdicts = await asyncio.gather(*(self._verdict(ask) for ask in most.values()))
        except (Unavailable, TimeoutError) as error:
            await context.abort(self._unavailable, str(error) or "Redis did not answer in time.")
        by_name = dict(zip(most, verdicts, strict=True))
        if not by_name:
            _log.warning("a call names no user by the keys that are mapped", keys=sorted(self._map.user))
            nobody = problem("missing-identity", "No descriptor names a user.")
            return _answer([Verdict(nobody) for _ in described], nobody)
        told = [Verdict(None) if one is None else by_name[one.name] for one in described]
        refused = next((verdict.refused for verdict in verdicts if verdict.refused is not None), None)
        return _answer(told, refused)

    async def _verdict(self, ask: Described) -> Verdict:
        if not USER_ID.fullmatch(ask.user_id):
            return Verdict(problem("invalid-id", "A descriptor does not name one possible user."))
        if ask.hits and ask.was_used:
            return await self._charged(ask)
        operation = self._asking(ask) if ask.hits else self._looking(ask)
        async with asyncio.timeout(self._seconds):
            line = await self._engine.run(ask.user_id, operation)
        return self._read(operation[0], line)

    async def _charged(self, ask: Described) -> Verdict:
        """Charges what was used. Where Redis is away it is charged later, and the caller is let through."""
        operation = self._asking(ask, "owed")
        try:
            line = await self._engine.run(ask.user_id, operation)
        except Unavailable:
            late = asyncio.get_running_loop().create_task(self._charge_later(ask, operation))
            self._late.add(late)
            late.add_done_callback(self._late.discard)
            raise
        return self._read(operation[0], line)

    async def _charge_later(self, ask: Described, operation: Operation) -> None:
        pause = RETRY_SECONDS_FIRST
        for _ in range(RETRIES_MAX):
            await asyncio.sleep(pause)
            pause = min(pause * 2, RETRY_SECONDS_MAX)
            try:
                await self._engine.run(ask.user_id, operation)
            except Unavailable:
                continue
            return
        _log.error("what was used could not be charged", user_id=ask.user_id, hits=ask.hits)

    def _asking(self, ask: Described, shortfall: str = "reject") -> Operation:
        units = ask.hits * self._scale.units_per_credit
        request_id = ask.request_id if REQUEST_ID.fullmatch(ask.request_id) else ""
        key = f"rls {request_id or secrets.token_urlsafe(16)} {ask.name} {ask.hits} {shortfall}"
        members = {"request_id": request_id} if request_id else None
        asked = Asked(key, operations.members(None, members, request_id))
        usage = self._usage(ask, {ask.dimension: min(ask.hits, QUANTITY_MAX)}, None)
        if usage:
            return priced.deduct_usage(ask.user_id, usage, shortfall, asked, amount=units)
        return operations.deduct(ask.user_id, units, shortfall, asked)

    def _looking(self, ask: Described) -> Operation:
        """Whether the user may spend anything, and the model has a price."""
        usage = self._usage(ask, {"input": 1}, 1)
        if usage:
            return priced.quote(ask.user_id, usage=usage, amount=self._least)
        return operations.explain(ask.user_id, self._least)

    def _usage(self, ask: Described, quantities: dict[str, int], most: int | None) -> str:
        names = all_names([ask.model]) if ask.model and self._prices else ()
        return usage_text(names[0], quantities, most, names[1:]) if names else ""

    def _read(self, name: str, line: str) -> Verdict:
        if not is_ok(line):
            return Verdict(self._render(name, line))
        line, behind = read_behind(line)
        if name in (EXPLAIN.name, QUOTE.name):
            found = (EXPLAIN if name == EXPLAIN.name else QUOTE).read(line)
            if found["would"] == "ok":
                return Verdict(None, self._left(found))
            of = {"user_id": found["user_id"], "required": self._least, "violations": found["violations"]}
            return Verdict(self._render(DEDUCT.name, DEDUCT.refusing(found["would"], found.balances, **of)))
        found = (DEDUCT if name == DEDUCT.name else DEDUCT_USAGE).read(line)
        if found.units("uncovered"):
            return Verdict(problem("insufficient-credits", "The credits did not cover all that was used."))
        is_new = behind.rate and not found.replayed
        return Verdict(None, self._left(found), standing_headers(read_rate(behind.rate)) if is_new else ())

    def _left(self, found: Line) -> int:
        available = 0 if found.balances is None else found.balances.available
        left: int = int(available) // self._scale.units_per_credit
        return min(left, _LEFT_MAX)


class Descriptor(NamedTuple):
    """As Envoy sends it: entries by their keys, the first of each, and the hits."""

    entries: dict[str, str]
    hits: int


def descriptors_in(message: bytes) -> list[Descriptor]:
    """The descriptors of a RateLimitRequest. Hits are a descriptor's own, else the request's, else 1. Raises
    `ValueError`.
    """
    hits, parts = 1, []
    for number, value in fields_of(message):
        if number == 2 and isinstance(value, bytes):
            parts.append(value)
        elif number == 3 and isinstance(value, int):
            hits = value or 1
    return [_descriptor(part, hits) for part in parts]


def _descriptor(part: bytes, hits: int) -> Descriptor:
    entries: dict[str, str] = {}
    for number, value in fields_of(part):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            pair = dict(fields_of(value))
            key, told = (_text(pair.get(at, b"")) for at in (1, 2))
            entries.setdefault(key, told)
        elif number == 3:
            own = dict(fields_of(value)).get(1, 0)
            hits = own if isinstance(own, int) else hits
    return Descriptor(entries, hits)


def _text(value: int | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""


def _answer(told: Sequence[Verdict], refused: Rendered | None) -> bytes:
    """A RateLimitResponse: its code, that of each descriptor, and what the client is told of a refusal."""
    answer = number_field(1, _OVER_LIMIT if refused is not None else _OK)
    for verdict in told:
        code = number_field(1, _OVER_LIMIT if verdict.refused is not None else _OK)
        answer += bytes_field(2, code + number_field(3, verdict.left) + _until_reset(verdict.refused))
    if refused is None:
        return answer + _headers_field(next((verdict.headers for verdict in told if verdict.headers), ()))
    status = ((b"content-type", refused.content_type), (b"x-meter-status", b"%d" % refused.status))
    return answer + _headers_field((*status, *refused.headers)) + bytes_field(5, refused.body)


def _headers_field(headers: Headers) -> bytes:
    """What the client gets besides."""
    return b"".join(bytes_field(3, bytes_field(1, name) + bytes_field(2, value)) for name, value in headers)


def _until_reset(refused: Rendered | None) -> bytes:
    """`duration_until_reset` of a descriptor that waiting helps."""
    wait = dict(refused.headers).get(b"retry-after") if refused is not None else None
    return bytes_field(4, number_field(1, int(wait))) if wait else b""
