"""The gateway contract: one authorizer and one commit that every gateway can call, with headers only, and its logs.

A request is allowed by exactly 200 without a body, and refused by the problem that it is. Every documented header is on
every answer, so that no gateway ever passes on a client's own. An answer comes within `METER_GATEWAY_TIMEOUT_MS`, which
is sooner than any gateway stops waiting.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from meter.api.services import Services
from meter.config import Settings
from meter.gateway.authorize import Authorizer
from meter.gateway.commit import Commits
from meter.gateway.counts import GatewayCounts
from meter.gateway.ext_proc import ExternalProcessor
from meter.gateway.fail_open import FailOpen
from meter.gateway.headers import GatewayHeaders
from meter.gateway.ids import ReservationNames
from meter.gateway.logs import AccessLogs
from meter.gateway.rls import RateLimitService
from meter.gateway.settlement import GatewaySettlements, SettlementRules
from meter.gateway.syslog import SyslogListener
from meter.gateway.withdrawals import Withdrawals
from meter.http.exchange import awaitable


class GatewayHandlers:
    """All that gateways call, sharing their counts and what settles in the background."""

    def __init__(self, services: Services) -> None:
        settings = services.settings
        self._services = services
        names = ReservationNames(services.engine.place_of, settings.gateway_secret, settings.gateway_secret_other)
        headers = GatewayHeaders(settings, services.scale, names)
        self.counts = GatewayCounts()
        self.rules = SettlementRules(
            services.scale,
            settings.gateway_on_missing_usage,
            self.counts,
            prices=settings.gateway_charge_by == "auto",
            names=names,
        )
        self.settlements = GatewaySettlements(services.engine, self.counts, self.rules.otherwise)
        self.logs = AccessLogs(
            services.engine,
            self.rules,
            self.counts,
            names=names,
            bytes_max=settings.gateway_logs_max_bytes,
            batch_max=settings.batch_max,
        )
        self.withdrawals = Withdrawals(services)
        self._fail_open = None
        if settings.fail_mode == "open":
            self._fail_open = FailOpen(settings, services.scale, services.engine, self.counts)
        self.authorize = Authorizer(services, headers, self.withdrawals, self._fail_open).authorize
        self.commit = Commits(services, headers, self.rules, self.settlements, self.counts).commit

    @contextlib.asynccontextmanager
    async def listening(self, settings: Settings) -> AsyncIterator[None]:
        """What gateways speak to besides HTTP, while it is open: syslog, ext_proc, rate limits, as the settings say. At
        its end what settles in the background has a little time left.
        """
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self.settlements.close)
            stack.push_async_callback(self.withdrawals.close)
            if self._fail_open is not None:
                await stack.enter_async_context(self._fail_open.running())
            if settings.syslog:
                listener = SyslogListener(settings.syslog, self.logs, self.settlements, self.counts)
                await stack.enter_async_context(listener)
            if settings.ext_proc:
                processor = ExternalProcessor(
                    settings.ext_proc, awaitable(self.authorize), self.rules, self.settlements
                )
                await stack.enter_async_context(processor)
            if settings.rls:
                await stack.enter_async_context(RateLimitService(settings, self._services))
            yield
