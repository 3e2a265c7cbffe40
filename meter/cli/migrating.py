"""`meter migrate`: the store gets the schema of this version before anything of this version starts.

Every process does the same when it starts. On its own it is for deployments whose processes may not change tables, or
which want a migration that fails to end the roll-out and not a server: it ends with an exit code.
"""

from __future__ import annotations

import asyncio
import time

import orjson
from rich.console import Console

from meter.config import Settings
from meter.errors import ConfigError, StoreUnavailable
from meter.log import logger, without_password
from meter.runtime import Runtime, addressed

PAUSE_SECONDS = 0.5

_log = logger("meter")


async def migrate(settings: Settings, wait_seconds: float, *, as_json: bool) -> int:
    """Migrates, and says so; any number may do it at once. Raises `ConfigError` where there is no store or it refuses,
    and `StoreUnavailable` when it was not there within `wait_seconds`.
    """
    runtime = Runtime(settings)
    if runtime.store is None:
        raise ConfigError("METER_STORE_URL=none: there is no store that could be migrated")
    started = time.monotonic()
    try:
        await _opened(runtime, started + wait_seconds)
    finally:
        await runtime.close()
    store, seconds = without_password(settings.store_url), round(time.monotonic() - started, 1)
    if as_json:
        Console().out(orjson.dumps({"store": store, "seconds": seconds}).decode(), highlight=False)
    else:
        Console(soft_wrap=True).print(f"{store} has the schema of this version ({seconds} s)", highlight=False)
    return 0


async def _opened(runtime: Runtime, deadline: float) -> None:
    is_told = False
    while True:
        try:
            await addressed(runtime.settings, runtime.open_store)
        except StoreUnavailable as error:
            if time.monotonic() >= deadline:
                raise
            if not is_told:
                _log.warning("not ready yet: it is waited for", why=str(error))
            is_told = True
            await asyncio.sleep(PAUSE_SECONDS)
        else:
            return
