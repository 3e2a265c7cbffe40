"""The gateway contract: one authorizer and one commit that every gateway can call, with headers only.

A request is allowed by exactly 200 without a body, and refused by the problem that it is. Every documented header is on
every answer, so that no gateway ever passes on a client's own. An answer comes within `METER_GATEWAY_TIMEOUT_MS`, which
is sooner than any gateway stops waiting.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from meter.amount import AmountScale
from meter.api.services import Services
from meter.config import Settings
from meter.engine import operations
from meter.engine.operations import Asked
from meter.errors import InvalidAmount, MeterError, RedisUnavailable
from meter.gateway.answer import GatewayAnswer
from meter.gateway.background import Settler
from meter.gateway.counts import GatewayTally
from meter.gateway.ext_proc import ExternalProcessor
from meter.gateway.headers import GatewayHeaders
from meter.gateway.logs import Intake
from meter.gateway.settlement import Settlement
from meter.gateway.syslog import SyslogListener
from meter.http.exchange import Request, Respond, awaitable
from meter.http.reading import failure
from meter.http.rendered import Answered, Rendered, problem, validation_problem

MODES = ("reserve", "deduct", "check")
DIALECTS = ("", "nginx")
CHARGED = 5
"""Where the line of a commit says what was charged."""


class Options(NamedTuple):
    """What a gateway's configuration chose. `amount` (a decimal) beats the header and the default."""

    mode: str
    nginx: bool = False
    amount: str = ""


class GatewayHandlers:
    """`/gateway/authorize` and `/gateway/commit`: no coroutine, one submit, one answer."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._engine = services.engine
        self._scale = services.scale
        self._render = services.renderer.render
        self._headers = GatewayHeaders(settings, services.scale)
        self.tally = GatewayTally()
        self.settlement = Settlement(services.scale, settings.gateway_on_missing_usage, self.tally)
        self._ttl_ms = settings.reservation_ttl_seconds * 1000
        self._at_end = "charge" if settings.gateway_on_missing_usage == "estimate" else "release"
        self._timeout_seconds = settings.gateway_timeout_ms / 1000
        self._plain = Options(settings.gateway_mode)
        self.settler = Settler(services.engine, self.tally)
        self.intake = Intake(
            services.engine,
            self.settlement,
            self.tally,
            secret=settings.gateway_secret.encode(),
            batch_max=settings.batch_max,
        )

    def authorize(self, request: Request, respond: Respond) -> None:
        """`ANY /gateway/authorize[/{rest}]`. What follows the path, and its query, are the client's: never read."""
        answer = GatewayAnswer(respond, self._timeout_seconds)
        try:
            options = self._plain
            if request.query and "rest" not in request.path:
                options = _options(request.query, self._plain.mode)
                _refuse_passed_on(request)
            answer.nginx = options.nginx
            user_id = self._headers.user(request.headers)
            request_id = self._headers.request_id(request.headers)
            units = self._units(options.amount) if options.amount else self._headers.estimate(request.headers)
            if options.mode == "reserve":
                self._reserve(user_id, request_id, units, answer)
            elif options.mode == "deduct":
                self._deduct(user_id, request_id, units, answer)
            else:
                self._check(user_id, units, answer)
        except Exception as error:  # every way out is an answer in the gateway's dialect
            answer.refuse(failure(error))

    def commit(self, request: Request, respond: Respond) -> None:
        """`ANY /gateway/commit`"""
        answer = GatewayAnswer(respond, self._timeout_seconds)
        try:
            reservation_id = self._headers.settled(request.headers)
            one = self.settlement.operation(reservation_id, self._headers.exchange(request.headers), "commit")
        except Exception as error:
            answer.refuse(failure(error))
            return

        def heard(line: str | MeterError) -> None:
            self.tally.settled("commit", one, line)
            if isinstance(line, MeterError):
                answer.refuse(failure(line))
                return
            fields = line.split(" ")
            if fields[1] != "ok":
                answer.refuse(self._render(one[0], line))
                return
            charged = self._text(fields[CHARGED]) if one[0] == "commit" else b"0"
            more = ((b"x-credits-charged", charged),)
            answer.allow(reservation_id, b"0", self._text(fields[-3]), more, replayed=fields[0] == "1")

        self._submit(lambda: self._engine.submit_for_reservation(reservation_id, one, heard), answer)

    def _reserve(self, user_id: str, request_id: str, units: int, answer: GatewayAnswer) -> None:
        if request_id:
            reservation_id, chosen = self._headers.reservation_id(user_id, request_id), True
        else:
            reservation_id, chosen = self._engine.new_reservation_id(user_id), False
        one = operations.reserve(
            user_id,
            reservation_id,
            units,
            self._ttl_ms,
            chosen=chosen,
            at_end=self._at_end,
            asked=_asked("", request_id),
        )

        def heard(line: str | MeterError) -> None:
            if answer.done or isinstance(line, RedisUnavailable):
                self._undo(reservation_id, line)
            if isinstance(line, MeterError):
                answer.refuse(failure(line))
            elif line.startswith("0 ok "):
                fields = line.split(" ")
                answer.allow(reservation_id, self._text(fields[4]), self._text(fields[-3]))
            elif line.startswith("1 ok "):
                self._again(reservation_id, answer)
            else:
                answer.refuse(self._refusal("reserve", line), self._remaining(line))

        self._submit(lambda: self._engine.submit(user_id, one, heard), answer)

    def _again(self, reservation_id: str, answer: GatewayAnswer) -> None:
        """The request id was seen before: its hold stands for it as long as it is open, and never longer."""

        def heard(line: str | MeterError) -> None:
            if isinstance(line, MeterError):
                answer.refuse(failure(line))
                return
            fields = line.split(" ")
            state = fields[4] if fields[1] == "ok" else "unknown"
            if state == "open":
                answer.allow(reservation_id, self._text(fields[5]), self._text(fields[-3]), replayed=True)
            else:
                detail = f"The reservation of this request id is {state} already."
                answer.refuse(problem("request-id-reused", detail, f'"state":"{state}"'))

        one = operations.reservation(reservation_id)
        self._submit(lambda: self._engine.submit_for_reservation(reservation_id, one, heard), answer)

    def _undo(self, reservation_id: str, line: str | MeterError) -> None:
        """The gateway was told 503 meanwhile, so the request is not served: what was held for it goes back."""
        made = line.startswith("0 ok ") if isinstance(line, str) else isinstance(line, RedisUnavailable)
        if made:
            try:
                self._engine.submit_for_reservation(reservation_id, operations.release(reservation_id), lambda _: None)
            except MeterError:
                return  # the hold ends by itself

    def _deduct(self, user_id: str, request_id: str, units: int, answer: GatewayAnswer) -> None:
        key = f"authorize {self._headers.reservation_id(user_id, request_id)}" if request_id else ""
        one = operations.deduct(user_id, units, "reject", _asked(key, request_id))

        def heard(line: str | MeterError) -> None:
            if isinstance(line, MeterError):
                answer.refuse(failure(line))
            elif line.startswith("0 ok "):
                fields = line.split(" ")
                more = ((b"x-credits-charged", self._text(fields[5])),)
                answer.allow("", b"0", self._text(fields[-3]), more)
            elif line.startswith("1 ok "):
                answer.refuse(problem("request-id-reused", "This request id was charged already."))
            else:
                answer.refuse(self._refusal("deduct", line), self._remaining(line))

        self._submit(lambda: self._engine.submit(user_id, one, heard), answer)

    def _check(self, user_id: str, units: int, answer: GatewayAnswer) -> None:
        def heard(line: str | MeterError) -> None:
            if isinstance(line, MeterError):
                answer.refuse(failure(line))
                return
            head, *_, balances = line.split(";")
            would = head.split(" ")[3]
            remaining = self._text(balances.split(" ")[-3])
            if would == "ok":
                answer.allow("", b"0", remaining)
            else:
                refusal = f"0 {would}" + (f" {user_id} {units}" if would == "insufficient" else "") + balances
                answer.refuse(self._render("deduct", refusal), remaining)

        self._submit(lambda: self._engine.submit(user_id, operations.explain(user_id, units), heard), answer)

    def _submit(self, submit: Callable[[], None], answer: GatewayAnswer) -> None:
        try:
            submit()
        except MeterError as error:
            answer.refuse(failure(error))

    def _refusal(self, name: str, line: str) -> Rendered:
        if line == "0 key_reused":
            return problem("request-id-reused", "This request id was used before, with another estimate.")
        return self._render(name, line)

    def _remaining(self, line: str) -> bytes:
        fields = line.split(" ")
        return self._text(fields[-3]) if len(fields) > 4 else b""

    def _text(self, units: str) -> bytes:
        return self._scale.text(int(units)).encode()

    def _units(self, amount: str) -> int:
        return _units(self._scale, amount)


@contextlib.asynccontextmanager
async def gateway_listeners(settings: Settings, handlers: GatewayHandlers) -> AsyncIterator[None]:
    """What gateways speak to besides HTTP, while it is open: syslog and ext_proc, as the settings say."""
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(handlers.settler.close)
        if settings.syslog:
            await stack.enter_async_context(
                SyslogListener(settings.syslog, handlers.intake, handlers.settler, handlers.tally)
            )
        if settings.ext_proc:
            processor = ExternalProcessor(
                settings.ext_proc, awaitable(handlers.authorize), handlers.settlement, handlers.settler
            )
            await stack.enter_async_context(processor)
        yield


@lru_cache(maxsize=64)
def _options(query: str, mode: str) -> Options:
    """What the query of the authorizer chose. Raises `Answered`."""
    pairs = parse_qsl(query, keep_blank_values=True)
    chosen = dict(pairs)
    faults = [(f"/{name}", "is not known here") for name in chosen.keys() - {"mode", "dialect", "amount"}]
    if len(chosen) != len(pairs):
        faults.append(("", "a query parameter is given twice"))
    if chosen.get("mode", mode) not in MODES:
        faults.append(("/mode", f"must be one of {', '.join(MODES)}"))
    if chosen.get("dialect", "") not in DIALECTS:
        faults.append(("/dialect", "must be nginx"))
    if faults:
        raise Answered(validation_problem(faults))
    return Options(chosen.get("mode", mode), chosen.get("dialect") == "nginx", chosen.get("amount", ""))


@lru_cache(maxsize=64)
def _units(scale: AmountScale, amount: str) -> int:
    try:
        units = scale.units(amount)
    except InvalidAmount as error:
        raise Answered(validation_problem([("/amount", str(error))])) from None
    if units < 0:
        raise Answered(validation_problem([("/amount", "must not be negative")]))
    return units


def _refuse_passed_on(request: Request) -> None:
    """A gateway that puts the client's query behind our path would let the client choose the mode.

    Raises `Answered`.
    """
    uri = request.headers.get(b"x-forwarded-uri", b"")
    if uri.partition(b"?")[2].decode("latin-1") == request.query:
        detail = "must be the gateway's own, but is the client's: give the authorize URI a query, such as ?mode=reserve"
        raise Answered(validation_problem([("", detail)]))


def _asked(key: str, request_id: str) -> Asked:
    """The ledger row says which request it was for."""
    return Asked(key, f'"metadata":{{"request_id":"{request_id}"}}') if request_id else operations.UNKEYED
