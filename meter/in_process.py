"""`Meter`: the whole sidecar in process, for an application that wants no second server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from starlette.applications import Starlette

from meter.api.carried import InProcess, carried
from meter.api.direct import DirectCalls
from meter.api.gate import Gate
from meter.api.handlers import handlers_of
from meter.app import credits_app, services_of
from meter.client.credits import Credits
from meter.config import Settings, load_settings
from meter.contract import answers
from meter.contract.answers import Answer, Refusal
from meter.dev.instance import settings_beside
from meter.engine.redis import RedisGateway
from meter.errors import ConfigError
from meter.http.exchange import Coroutine, Request
from meter.http.reading import failure
from meter.http.rendered import Rendered
from meter.openapi.host import fastapi_router
from meter.runtime import Runtime
from meter.store.base import Store

_A = TypeVar("_A", bound=Answer)
_B = TypeVar("_B", bound=Answer)


class Meter(Credits):
    """Credits decided in this process. `async with Meter.connect(url) as meter:` opens and closes it; without the block
    the first call opens it. It belongs to one event loop.
    """

    def __init__(self, settings: Settings, redis: RedisGateway | None = None, store: Store | None = None) -> None:
        """`redis` and `store` that are given are closed by their owner."""
        self._settings = settings
        self._runtime = Runtime(settings, redis, store, role="sidecar")
        services = services_of(self._runtime)
        self._jobs = services.jobs
        handlers = handlers_of(services)
        self._coroutines = {name: self._opening(run) for name, run in handlers.coroutines.items()}
        served = Gate(services).over(handlers) if settings.auth == "keys" else handlers
        self._served = {name: self._opening(run) for name, run in served.coroutines.items()}
        """What others call over HTTP."""
        self._direct: DirectCalls | None = DirectCalls(services)
        super().__init__(InProcess(self._coroutines))

    @classmethod
    def connect(cls, redis_url: str | None = None, **settings: object) -> Meter:
        """A meter on the Redis at `redis_url`, else on that of `METER_REDIS_URL`, else beside the `meter dev` that runs
        in `./.meter`. Other settings by field name.
        """
        is_told = redis_url is not None or "store_url" in settings
        beside = {} if is_told else settings_beside(Path(".meter"), os.environ)
        told = {} if redis_url is None else {"redis_url": redis_url}
        return cls(load_settings(**{**beside, **told, **settings}))

    async def __aenter__(self) -> Self:
        await self._runtime.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._jobs.close()
        await self._runtime.close()

    async def advance(self, seconds: float) -> None:
        """Moves the test clock forward and freezes it. Raises `ConfigError` unless `METER_TEST_CLOCK` is set."""
        if not self._settings.test_clock:
            raise ConfigError("METER_TEST_CLOCK=0: the test clock is off")
        await self._call("set_clock", answers.Clock, body={"advance_seconds": seconds})

    @property
    def api(self) -> Starlette:
        """The HTTP routes, to be mounted: `app.mount("/credits", meter.api)`. They share this meter's balances, and
        have their own `docs` and `openapi.json` below the mount.
        """
        return credits_app(self._served, self._settings)

    def fastapi_router(self) -> Any:
        """The same routes as a `fastapi.APIRouter`, which shows each in the host's own OpenAPI document:
        `app.include_router(meter.fastapi_router(), prefix="/credits")`. Raises `ConfigError` without FastAPI.
        """
        return fastapi_router(self._served, self._settings)

    async def _carried(
        self,
        name: str,
        answer: type[_A],
        later: type[_B],
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> _A | _B | Refusal:
        direct = self._direct
        if direct is None or body is None or self._actor or not direct.takes(name, body, key):
            return await super()._carried(name, answer, later, path=path, query=query, body=body, key=key)
        try:
            await self._runtime.start()
            found = await direct.ask(name, answer, path or {}, body)
        except Exception as error:  # the same answers as over HTTP
            found = failure(error)
        return self._read(carried(found), answer, later) if isinstance(found, Rendered) else found

    def _opening(self, run: Coroutine) -> Coroutine:
        """A handler that first opens what nobody has opened yet."""

        async def opened(request: Request) -> Rendered:
            await self._runtime.start()
            return await run(request)

        return opened
