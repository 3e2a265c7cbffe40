"""`ANY /gateway/authorize[/{rest}]`: may this request be served?

One submit and one answer, no coroutine. What was held for a request that was refused meanwhile goes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from meter.api.services import Services
from meter.engine import operations
from meter.engine.answers import AVAILABLE, FLAG, KEY_REUSED, OK, REPLAYED, WORD, Line, word_of
from meter.engine.declarations import DECLARED
from meter.engine.engine import LineDone
from meter.engine.operations import DEDUCT, EXPLAIN, RESERVATION, RESERVE, Asked
from meter.errors import MeterError, RedisUnavailable
from meter.gateway.answer import GatewayAnswer
from meter.gateway.choices import Choices, choices_of, fixed_price
from meter.gateway.headers import GatewayHeaders
from meter.http.exchange import Request, Respond
from meter.http.reading import failure
from meter.http.rendered import Rendered, problem

_HELD = RESERVE.field("amount")
_STATE, _STILL_HELD = RESERVATION.field("state"), RESERVATION.field("amount")
_TAKEN = DEDUCT.field("taken")


class Authorizer:
    """Decides by what the headers say."""

    def __init__(self, services: Services, headers: GatewayHeaders) -> None:
        settings = services.settings
        self._engine = services.engine
        self._scale = services.scale
        self._render = services.renderer.render
        self._headers = headers
        self._ttl_ms = settings.reservation_ttl_seconds * 1000
        self._at_end = "charge" if settings.gateway_on_missing_usage == "estimate" else "release"
        self._timeout_seconds = settings.gateway_timeout_ms / 1000
        self._default = Choices(settings.gateway_mode)

    def authorize(self, request: Request, respond: Respond) -> None:
        """Answers within `METER_GATEWAY_TIMEOUT_MS`."""
        answer = GatewayAnswer(respond, self._timeout_seconds)
        try:
            choices = choices_of(request, self._default)
            answer.nginx = choices.nginx
            user_id = self._headers.user_id(request.headers)
            request_id = self._headers.request_id(request.headers)
            fixed = choices.amount
            units = fixed_price(self._scale, fixed) if fixed else self._headers.estimate(request.headers)
            if choices.mode == "reserve":
                self._reserve(user_id, request_id, units, answer)
            elif choices.mode == "deduct":
                self._deduct(user_id, request_id, units, answer)
            else:
                self._check(user_id, units, answer)
        except Exception as error:  # every way out is an answer in the gateway's dialect
            answer.refuse(failure(error))

    def _reserve(self, user_id: str, request_id: str, units: int, answer: GatewayAnswer) -> None:
        if request_id:
            reservation_id, chosen = self._headers.reservation_id(user_id, request_id), True
        else:
            reservation_id, chosen = self._engine.new_reservation_id(user_id), False
        operation = operations.reserve(
            user_id,
            reservation_id,
            units,
            self._ttl_ms,
            chosen=chosen,
            at_end=self._at_end,
            asked=_asked("", request_id),
        )

        def on_ok(fields: Sequence[str]) -> None:
            if fields[FLAG] == REPLAYED:
                self._again(reservation_id, answer)
            else:
                answer.allow(reservation_id, self._text(fields[_HELD]), self._text(fields[AVAILABLE]))

        decided = self._decided("reserve", answer, on_ok)

        def heard(line: str | MeterError) -> None:
            if answer.done or isinstance(line, RedisUnavailable):
                self._undo(reservation_id, line)
            decided(line)

        self._engine.submit(user_id, operation, heard)

    def _again(self, reservation_id: str, answer: GatewayAnswer) -> None:
        """The request id was seen before: its hold stands for it as long as it is open, and never longer."""

        def on_ok(fields: Sequence[str]) -> None:
            state = fields[_STATE]
            if state == "open":
                held = self._text(fields[_STILL_HELD])
                answer.allow(reservation_id, held, self._text(fields[AVAILABLE]), replayed=True)
            else:
                detail = f"The reservation of this request id is {state} already."
                answer.refuse(problem("request-id-reused", detail, f'"state":"{state}"'))

        operation = operations.reservation(reservation_id)
        try:
            decided = self._decided("reservation", answer, on_ok)
            self._engine.submit_for_reservation(reservation_id, operation, decided)
        except MeterError as error:
            answer.refuse(failure(error))

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
        operation = operations.deduct(user_id, units, "reject", _asked(key, request_id))

        def on_ok(fields: Sequence[str]) -> None:
            if fields[FLAG] == REPLAYED:
                answer.refuse(problem("request-id-reused", "This request id was charged already."))
            else:
                more = ((b"x-credits-charged", self._text(fields[_TAKEN])),)
                answer.allow("", b"0", self._text(fields[AVAILABLE]), more)

        self._engine.submit(user_id, operation, self._decided("deduct", answer, on_ok))

    def _check(self, user_id: str, units: int, answer: GatewayAnswer) -> None:
        decided = self._decided("deduct", answer, lambda _: None)

        def heard(line: str | MeterError) -> None:
            """What is explained is answered as the deduct that it explains."""
            if not isinstance(line, MeterError):
                explained = EXPLAIN.read(line)
                if explained["would"] == OK:
                    answer.allow("", b"0", self._text(_available(explained)))
                    return
                line = DEDUCT.refusing(explained["would"], explained.balances, user_id=user_id, required=units)
            decided(line)

        self._engine.submit(user_id, operations.explain(user_id, units), heard)

    def _decided(self, name: str, answer: GatewayAnswer, on_ok: Callable[[Sequence[str]], None]) -> LineDone:
        """Answers what was not decided, and refusals of the operation `name`; `on_ok` answers the rest, by the fields
        of the line.
        """

        def heard(line: str | MeterError) -> None:
            if isinstance(line, MeterError):
                answer.refuse(failure(line))
                return
            fields = line.split(" ")
            if fields[WORD] == OK:
                on_ok(fields)
            else:
                answer.refuse(self._refusal(name, line), self._text(_available(DECLARED[name].read(line))))

        return heard

    def _refusal(self, name: str, line: str) -> Rendered:
        if word_of(line) == KEY_REUSED.word:
            return problem("request-id-reused", "This request id was used before, with another estimate.")
        return self._render(name, line)

    def _text(self, units: str) -> bytes:
        return self._scale.text(int(units)).encode() if units else b""


def _available(answer: Line) -> str:
    """What is left, where the answer tells it."""
    return "" if answer.balances is None else str(answer.balances.available)


def _asked(key: str, request_id: str) -> Asked:
    """The ledger row says which request it was for."""
    return Asked(key, f'"metadata":{{"request_id":"{request_id}"}}') if request_id else operations.UNKEYED
