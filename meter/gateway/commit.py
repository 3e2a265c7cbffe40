"""`ANY /gateway/commit`: what a request did cost, told in headers."""

from __future__ import annotations

from meter.api.services import Services
from meter.engine.answers import AVAILABLE, FLAG, NAME, OK, REPLAYED, WORD, subject_of
from meter.engine.behind import fields_of, spendable_of
from meter.engine.operations import COMMIT, RELEASE
from meter.errors import MeterError, Unavailable
from meter.gateway.answer import GatewayAnswer
from meter.gateway.counts import GatewayCounts
from meter.gateway.headers import GatewayHeaders
from meter.gateway.settlement import GatewaySettlements, SettlementRules
from meter.http.exchange import Request, Respond
from meter.http.reading import failure

_CHARGED = COMMIT.field("charged")


class Commits:
    """Settles a reservation while the gateway waits."""

    def __init__(
        self,
        services: Services,
        headers: GatewayHeaders,
        rules: SettlementRules,
        settlements: GatewaySettlements,
        counts: GatewayCounts,
    ) -> None:
        self._engine = services.engine
        self._scale = services.scale
        self._render = services.renderer.render
        self._headers = headers
        self._rules = rules
        self._settlements = settlements
        self._counts = counts
        self._timeout_seconds = services.settings.gateway_timeout_ms / 1000

    def commit(self, request: Request, respond: Respond) -> None:
        """Answers within `METER_GATEWAY_TIMEOUT_MS`. What was used was used: a commit that was answered 503 is done as
        soon as Redis can, whether or not the gateway repeats it.
        """
        answer = GatewayAnswer(respond, self._timeout_seconds)
        try:
            reservation_id = self._headers.settled(request.headers)
            settlement = self._rules.settlement_of(reservation_id, self._headers.outcome(request.headers), "commit")
        except Exception as error:
            answer.refuse(failure(error, request.headers))
            return

        def heard(line: str | MeterError) -> None:
            nonlocal settlement
            otherwise = None if isinstance(line, MeterError) else self._rules.otherwise(settlement, line)
            if otherwise is not None:
                settlement = otherwise
                ask()
                return
            self._counts.settled("commit", settlement, line)
            if isinstance(line, MeterError):
                answer.refuse(failure(line))
                if isinstance(line, Unavailable):
                    self._settlements.settle(settlement, "commit")
                return
            fields = fields_of(line)
            name = settlement[NAME]
            if fields[WORD] != OK:
                answer.refuse(self._render(name, line))
                return
            charged = b"0" if name == RELEASE.name else self._text(fields[_CHARGED])
            more = ((b"x-credits-charged", charged),)
            remaining = self._text(spendable_of(line) or fields[AVAILABLE])
            answer.allow(subject_of(settlement), b"0", remaining, more, replayed=fields[FLAG] == REPLAYED)

        def ask() -> None:
            try:
                self._engine.submit_for_reservation(subject_of(settlement), settlement, heard)
            except MeterError as error:
                heard(error)

        ask()

    def _text(self, units: str) -> bytes:
        return self._scale.text(int(units)).encode()
