"""`ANY /gateway/authorize[/{rest}]`: may this request be served?

One submit and one answer, no coroutine. Refused means not charged (docs/gateways.md): Redis does not begin when the
gateway has had its 503, what it did before is taken back (withdrawals.py), and the same request may ask anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from meter.api.rule_text import standing_headers
from meter.api.services import Services
from meter.contract.usage import QUANTITY_MAX
from meter.engine import operations, priced
from meter.engine.answers import (
    AVAILABLE,
    FINISHED,
    FLAG,
    INSUFFICIENT,
    KEY_REUSED,
    NAME,
    NOTHING,
    OK,
    RATE_LIMITED,
    REPLAYED,
    WORD,
    Line,
    is_ok,
    word_of,
)
from meter.engine.behind import fields_of, read_behind, spendable_of
from meter.engine.declarations import DECLARED
from meter.engine.operations import DEDUCT, EXPLAIN, RESERVE, Asked, Operation
from meter.engine.presented import Presented
from meter.engine.prices import usage_text
from meter.engine.rules import read_rate, read_violations
from meter.engine.upkeep import WITHDRAWN
from meter.errors import MeterError, Overloaded, Unavailable, Undecided
from meter.gateway.answer import UNMETERED, GatewayAnswer
from meter.gateway.choices import Choices, choices_of, fixed_price
from meter.gateway.fail_open import FailOpen
from meter.gateway.headers import GatewayHeaders
from meter.gateway.withdrawals import Withdrawals
from meter.http.credentials import brought_key
from meter.http.exchange import Request, Respond
from meter.http.reading import failure
from meter.http.rendered import Rendered, problem

_HELD = RESERVE.field("amount")
_ENDS_AT = RESERVE.field("expires_at_ms")
_CHARGE, _TAKEN = DEDUCT.field("transaction_id"), DEDUCT.field("taken")


class Authorizer:
    """Decides by what the headers say."""

    def __init__(
        self,
        services: Services,
        headers: GatewayHeaders,
        withdrawals: Withdrawals,
        fail_open: FailOpen | None = None,
    ) -> None:
        """Without `fail_open` what nobody can decide is refused."""
        settings = services.settings
        self._withdrawals = withdrawals
        self._fail_open = fail_open
        self._engine = services.engine
        self._find_payer = services.find_payer
        self._scale = services.scale
        self._render = services.renderer.render
        self._headers = headers
        self._ttl_ms = settings.reservation_ttl_seconds * 1000
        self._at_end = "confirm" if settings.gateway_on_missing_usage == "estimate" else "release"
        self._timeout_seconds = settings.gateway_timeout_ms / 1000
        self._prices = settings.gateway_charge_by == "auto"
        self._default = Choices(settings.gateway_mode)

    def authorize(self, request: Request, respond: Respond) -> None:
        """Answers within `METER_GATEWAY_TIMEOUT_MS`."""
        answer = GatewayAnswer(respond, self._timeout_seconds)
        try:
            choices = choices_of(request, self._default)
            answer.nginx = choices.nginx
            key = brought_key(request.headers)
            if not key:
                self._decide(request, choices, answer, self._headers.user_id(request.headers))
                return

            def found(user_id: str, presented: Presented) -> None:
                self._headers.check_owner(request.headers, user_id)
                answer.presented = (presented,)
                answer.identity = ((self._headers.user_name, user_id.encode()),)
                self._decide(request, choices, answer, user_id)

            self._find_payer(key, found, lambda error: _give_up(answer, error))
        except Exception as error:  # every way out is an answer in the gateway's dialect
            answer.refuse(failure(error, request.headers))

    def _decide(self, request: Request, choices: Choices, answer: GatewayAnswer, user_id: str) -> None:
        """Asks for what was chosen. Raises `Answered`, and `Overloaded`."""
        request_id = self._headers.request_id(request.headers)
        fixed = choices.amount
        units = fixed_price(self._scale, fixed) if fixed else self._headers.estimate(request.headers)
        if self._fail_open is not None and not answer.presented:  # what a key may do is for Redis alone to say
            serve = self._serve_unmetered
            noted = request_id if choices.mode != "check" else None
            answer.serves = partial(serve, self._fail_open, answer, user_id, units, noted)
        if choices.mode == "reserve":
            usage = "" if fixed or not self._prices else self._usage(units, self._headers.models(request.headers))
            self._reserve(user_id, request_id, units, usage, answer)
        elif choices.mode == "deduct":
            self._deduct(user_id, request_id, units, answer)
        else:
            self._check(user_id, units, answer)

    def _usage(self, units: int, names: Sequence[str]) -> str:
        """As many tokens in and out as are estimated: all that headers tell of a request."""
        tokens = min(-(-units // self._scale.units_per_credit), QUANTITY_MAX)
        return usage_text(names[0] if names else None, {"input": tokens}, tokens, names[1:])

    def _reserve(self, user_id: str, request_id: str, units: int, usage: str, answer: GatewayAnswer) -> None:
        """The hold of a request stands for it as long as it is open, and never longer. `usage`: what a rate card
        prices, "" where none is asked.
        """
        if request_id:
            name = reservation_id = self._headers.reservation_id(user_id, request_id)
        else:
            name, reservation_id = "", self._engine.new_reservation_id(user_id)
        operation = self._hold(user_id, reservation_id, request_id, units, usage)

        def on_ok(fields: Sequence[str], left: str) -> bool:
            held = self._text(fields[_HELD])
            if not answer.allow(reservation_id, held, self._text(left), replayed=fields[FLAG] == REPLAYED):
                return False
            if self._at_end == "confirm":
                self._withdrawals.confirm(reservation_id)
            return True

        def undo(fields: Sequence[str] | None) -> None:
            ends_at = None if fields is None else int(fields[_ENDS_AT])
            self._withdrawals.hold(reservation_id, ends_at, name)

        self._ask(name, user_id, operation, answer, self._decided(operation[NAME], user_id, answer, on_ok), undo)

    def _hold(self, user_id: str, reservation_id: str, request_id: str, units: int, usage: str) -> Operation:
        asked, ttl_ms, at_end = _asked("", request_id), self._ttl_ms, self._at_end
        if usage and request_id:
            return priced.reserve_usage_for_request(
                user_id, reservation_id, usage, ttl_ms, at_end=at_end, asked=asked, amount=units
            )
        if usage:
            return priced.reserve_usage(
                user_id, reservation_id, usage, ttl_ms, chosen=False, at_end=at_end, amount=units
            )
        if request_id:
            return operations.reserve_for_request(user_id, reservation_id, units, ttl_ms, at_end=at_end, asked=asked)
        return operations.reserve(user_id, reservation_id, units, ttl_ms, chosen=False, at_end=at_end)

    def _deduct(self, user_id: str, request_id: str, units: int, answer: GatewayAnswer, attempt: int = 0) -> None:
        """A charge that was taken back has used up its key: the request is charged under the next one."""
        name = f"authorize {self._headers.reservation_id(user_id, request_id)}" if request_id else ""
        key = f"{name} {attempt}" if attempt else name
        operation = operations.deduct(user_id, units, "reject", _asked(key, request_id))

        def on_ok(fields: Sequence[str], left: str) -> bool:
            if fields[FLAG] == REPLAYED:
                answer.refuse(self._charged_already(fields[_CHARGE]))
                return True
            more = ((b"x-credits-charged", self._text(fields[_TAKEN])),)
            return answer.allow("", b"0", self._text(left), more)

        def undo(fields: Sequence[str] | None) -> None:
            if fields is not None and fields[_CHARGE] == NOTHING:  # a charge of nothing
                self._withdrawals.leave(name)
            elif fields is not None:
                self._withdrawals.charge(user_id, fields[_CHARGE], operation, name)
            elif key:
                self._withdrawals.unknown_charge(user_id, operation, name)
            else:
                self._withdrawals.give_up(user_id)

        decided = self._decided("deduct", user_id, answer, on_ok)

        def heard(line: str | MeterError) -> bool:
            if isinstance(line, str) and word_of(line) == WITHDRAWN:
                self._deduct(user_id, request_id, units, answer, attempt + 1)
                return True
            return decided(line)

        self._ask(name, user_id, operation, answer, heard, undo)

    def _ask(
        self,
        name: str,
        user_id: str,
        operation: Operation,
        answer: GatewayAnswer,
        decided: Callable[[str | MeterError], bool],
        undo: Callable[[Sequence[str] | None], None],
    ) -> None:
        """Asks the engine, when what the same request asked before is known. `undo` takes back what was done for a
        gateway that was not told of it: it had its 503 meanwhile, or has gone. By the fields of the line; None where
        nobody can say what was done.
        """

        def heard(line: str | MeterError) -> None:
            was_told = decided(line)
            if isinstance(line, Undecided):
                self._withdrawals.find_out(line, name, undo)
            elif not was_told and isinstance(line, str) and line.startswith("0 ok "):
                undo(fields_of(line))
            else:
                self._withdrawals.leave(name)

        def ask() -> None:
            if answer.done:  # it waited for too long
                self._withdrawals.leave(name)
                return
            try:
                self._engine.submit(user_id, answer.asking(operation), heard, answer.due)
            except MeterError as error:
                self._withdrawals.leave(name)
                _give_up(answer, error)

        self._withdrawals.enter(name, ask)

    def _check(self, user_id: str, units: int, answer: GatewayAnswer) -> None:
        decided = self._decided("deduct", user_id, answer, lambda _, __: True)

        def heard(line: str | MeterError) -> None:
            """What is explained is answered as the deduct that it explains."""
            if isinstance(line, str) and is_ok(line):
                explained = EXPLAIN.read(line)
                if explained["would"] == OK:
                    self._learn(user_id, _available(explained))
                    answer.allow("", b"0", self._text(spendable_of(line) or _available(explained)))
                    return
                of = {"user_id": user_id, "required": units, "violations": explained["violations"]}
                line = DEDUCT.refusing(explained["would"], explained.balances, **of)
            decided(line)

        self._engine.submit(user_id, answer.asking(operations.explain(user_id, units)), heard)

    def _learn(self, user_id: str, available: str) -> None:
        """What a user has, for the time when nobody can say; "" where it may not spend."""
        if self._fail_open is not None:
            if available:
                self._fail_open.learn(user_id, int(available))
            else:
                self._fail_open.forget(user_id)

    def _decided(
        self, name: str, user_id: str, answer: GatewayAnswer, on_ok: Callable[[Sequence[str], str], bool]
    ) -> Callable[[str | MeterError], bool]:
        """Answers what was not decided, and refusals of the operation `name`; `on_ok` answers the rest, by the fields
        of the line and what is left to spend, and says whether the gateway was there to be told.
        """

        def heard(line: str | MeterError) -> bool:
            if isinstance(line, MeterError):
                _give_up(answer, line)
                return True
            fields = fields_of(line)
            if fields[WORD] == OK:
                if (rate := read_behind(line)[1].rate) and fields[FLAG] != REPLAYED:
                    answer.limits = standing_headers(read_rate(rate))
                self._learn(user_id, fields[AVAILABLE])
                return on_ok(fields, spendable_of(line) or fields[AVAILABLE])
            available = _available(DECLARED[name].read(line))
            self._learn(user_id, available if fields[WORD] in (INSUFFICIENT.word, RATE_LIMITED.word) else "")
            answer.refuse(self._refusal(name, line), self._text(_spendable(DECLARED[name].read(line)) or available))
            return True

        return heard

    def _serve_unmetered(
        self, fail_open: FailOpen, answer: GatewayAnswer, user_id: str, units: int, noted: str | None
    ) -> bool:
        """Allows a request that nobody can decide, within what is known of its user; `noted` is its id where it is
        to be charged, else None.
        """
        left = fail_open.left(user_id, units)
        if left is None:
            return False
        served = None if noted is None else fail_open.note(user_id, units, noted)
        if served is None and noted is not None:
            return False
        if not answer.allow("", b"0", self._text(str(left)), UNMETERED) and served is not None:
            fail_open.take_back(served)
        return True

    def _charged_already(self, transaction_id: str) -> Rendered:
        """What is asked here in order (withdrawals.py) is known here; a sidecar that has just charged the same request
        may be about to take that back.
        """
        if self._engine.made(transaction_id) or self._withdrawals.is_settled_elsewhere(transaction_id):
            return problem("request-id-reused", "This request id was charged already.")
        return problem("metering-unavailable", "Another sidecar is at this request id.", '"reason":"request-id"')

    def _refusal(self, name: str, line: str) -> Rendered:
        if word_of(line) == KEY_REUSED.word:
            return problem("request-id-reused", "This request id was used before, with another estimate.")
        if word_of(line) == FINISHED.word:
            state = DECLARED[name].read(line)["state"]
            detail = f"The reservation of this request id is {state} already."
            return problem("request-id-reused", detail, f'"state":"{state}"')
        return self._render(name, line)

    def _text(self, units: str) -> bytes:
        return self._scale.text(int(units)).encode() if units else b""


def _give_up(answer: GatewayAnswer, error: Exception) -> None:
    is_leaving = isinstance(error, Overloaded) and error.reason == "draining"
    if isinstance(error, Unavailable) and not is_leaving:
        answer.give_up(failure(error))
    else:
        answer.refuse(failure(error))


def _available(answer: Line) -> str:
    """What is left, where the answer tells it."""
    return "" if answer.balances is None else str(answer.balances.available)


def _spendable(refused: Line) -> str | None:
    """What all who may pay have, of what is refused for want of credits."""
    violations = read_violations(refused.get("violations") or NOTHING)
    return next((one.limit for one in violations if one.rule == "credits"), None)


def _asked(key: str, request_id: str) -> Asked:
    """The ledger row says which request it was for, and those that settle it say so too."""
    if not request_id:
        return operations.UNKEYED
    return Asked(key, operations.members(None, {"request_id": request_id}, request_id))
