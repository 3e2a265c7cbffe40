"""`ANY /gateway/commit`: what a request did cost, told in headers."""

from __future__ import annotations

from meter.api.services import Services
from meter.errors import MeterError, Unavailable
from meter.gateway.answer import GatewayAnswer
from meter.gateway.counts import GatewayCounts
from meter.gateway.headers import GatewayHeaders
from meter.gateway.settlement import GatewaySettlements, SettlementRules
from meter.http.exchange import Request, Respond
from meter.http.reading import failure

CHARGED = 5
"""Where the line of a commit says what was charged."""


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
            answer.refuse(failure(error))
            return

        def heard(line: str | MeterError) -> None:
            self._counts.settled("commit", settlement, line)
            if isinstance(line, MeterError):
                answer.refuse(failure(line))
                if isinstance(line, Unavailable):
                    self._settlements.settle(settlement, "commit")
                return
            fields = line.split(" ")
            if fields[1] != "ok":
                answer.refuse(self._render(settlement[0], line))
                return
            charged = self._text(fields[CHARGED]) if settlement[0] == "commit" else b"0"
            more = ((b"x-credits-charged", charged),)
            answer.allow(reservation_id, b"0", self._text(fields[-3]), more, replayed=fields[0] == "1")

        try:
            self._engine.submit_for_reservation(reservation_id, settlement, heard)
        except MeterError as error:
            heard(error)

    def _text(self, units: str) -> bytes:
        return self._scale.text(int(units)).encode()
