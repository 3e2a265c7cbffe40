"""Where the provider of payments tells by itself what became of a payment: signed by it, so it needs no key of ours."""

from __future__ import annotations

import orjson

from meter.errors import ConfigError, Unavailable
from meter.http.exchange import Request
from meter.http.rendered import Rendered, problem
from meter.jobs import Jobs
from meter.top_ups.provider import EventRefused, NoAnswer


class PaymentEvents:
    """One coroutine: a request in, its answer out. Raises a `MeterError`."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    async def event(self, request: Request) -> Rendered:
        """`POST /payments/events`. Whether a payment of ours is told of, which the worker then settles."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()}
        try:
            known = await self._jobs.top_ups.heard(headers, request.body or b"")
        except (EventRefused, ConfigError) as error:
            return problem("payment-event-refused", str(error))
        except NoAnswer as error:
            raise Unavailable("payments", str(error)) from None
        return Rendered(200, orjson.dumps({"known": known}))
