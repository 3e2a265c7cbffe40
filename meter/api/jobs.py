"""Jobs of the worker that can be called by hand, a page at a time."""

from __future__ import annotations

from meter.api.services import Services
from meter.http.exchange import Request
from meter.http.rendered import Rendered
from meter.ledger.sweep import expire_due

CALLS_PER_PAGE = 8


class JobHandlers:
    """What a scheduler of one's own may call."""

    def __init__(self, services: Services) -> None:
        self._engine = services.engine
        self._redis = services.redis

    async def expire(self, _: Request) -> Rendered:
        """`POST /credits/jobs/expire`: ends what is due now, up to a page of each partition."""
        made, more = 0, False
        for number in range(len(self._engine.partitions)):
            done, is_cut = await expire_due(self._engine, self._redis, number, CALLS_PER_PAGE)
            made, more = made + done, more or is_cut
        return Rendered(200, b'{"transactions":%d,"more":%s}' % (made, b"true" if more else b"false"))
