"""The call that tells how long credits last."""

from __future__ import annotations

from meter.api.services import Services, path_user
from meter.api.settled import is_settled
from meter.clock import utc_time
from meter.contract.runway import Runway
from meter.http.exchange import Request
from meter.http.rendered import Rendered, answer
from meter.ledger.rollup import is_counting
from meter.plans.runways import Runways


class RunwayHandler:
    """From what the store has, once it has what was booked up to now."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def runway(self, request: Request) -> Rendered:
        """`GET /credits/runway/{user_id}`"""
        user_id, store = path_user(request), self._services.catalog("runways")
        is_complete = await is_settled(self._services.engine, self._services.redis, store)
        found = await Runways(store).of(user_id, await self._services.now_ms(user_id))
        credits_of, coming = self._services.scale.credits, found.forecast
        runs_out_at_ms = None if coming is None else coming.runs_out_at_ms
        next_at_ms = None if coming is None else coming.next_credits_at_ms
        told = Runway(
            user_id=user_id,
            available=credits_of(found.available),
            burn_per_day=None if found.pace is None else credits_of(found.pace.per_day),
            runs_out_at=None if runs_out_at_ms is None else utc_time(runs_out_at_ms),
            next_credits_at=None if next_at_ms is None else utc_time(next_at_ms),
            covered_until_next_credits=None if coming is None else coming.is_covered,
            confidence=None if found.pace is None else found.pace.confidence,
            is_complete=is_complete and not await is_counting(store),
        )
        return answer(200, told)
