"""The handlers of the jobs: each does one page. They take no body and no key."""

from __future__ import annotations

from meter.api.services import Services
from meter.contract.answers import Answer
from meter.contract.jobs import Allocated, Applied, Attempted, CarriedOut, Expired, Reminded, RolledUp, Rotated, Warned
from meter.errors import ConfigError, Unavailable
from meter.http.exchange import Request
from meter.http.rendered import Rendered, answer
from meter.jobs import COUNTED


class JobHandlers:
    """What a scheduler of one's own may call."""

    def __init__(self, services: Services) -> None:
        self._jobs = services.jobs

    async def expire(self, _: Request) -> Rendered:
        """`POST /credits/jobs/expire`"""
        return await self._page("expire", Expired)

    async def allocate(self, _: Request) -> Rendered:
        """`POST /credits/jobs/allocate`"""
        return await self._page("allocate", Allocated)

    async def apply_pending(self, _: Request) -> Rendered:
        """`POST /credits/jobs/pending`"""
        return await self._page("pending", Applied)

    async def remind(self, _: Request) -> Rendered:
        """`POST /credits/jobs/remind`"""
        return await self._page("remind", Reminded)

    async def deliver(self, _: Request) -> Rendered:
        """`POST /credits/jobs/deliver`"""
        return await self._page("deliver", Attempted)

    async def rotate(self, _: Request) -> Rendered:
        """`POST /credits/jobs/rotate`"""
        return await self._page("rotate", Rotated)

    async def roll_up(self, _: Request) -> Rendered:
        """`POST /credits/jobs/rollup`"""
        return await self._page("rollup", RolledUp)

    async def warn(self, _: Request) -> Rendered:
        """`POST /credits/jobs/runway`"""
        return await self._page("runway", Warned)

    async def buy(self, _: Request) -> Rendered:
        """`POST /credits/jobs/top_up`"""
        return await self._page("top_up", CarriedOut)

    async def _page(self, name: str, model: type[Answer]) -> Rendered:
        try:
            page = await self._jobs.by_name[name]()
        except ConfigError as error:  # the channels of alerts are made when they are first needed
            raise Unavailable("settings", str(error)) from None
        return answer(200, model.model_validate({COUNTED[name]: page.done, "more": page.more}))
