"""What every process that goes on asks before it starts: do Redis and the store take us, and each other."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from meter.errors import RedisUnavailable

if TYPE_CHECKING:
    from meter.config import Settings


def check(settings: Settings, *, queue: bool = False) -> None:
    """Refuses to start on a Redis or a store made with other settings, or that refuses us, and with `queue` on such a
    one for arq's jobs; what is away is waited for while serving. Raises `ConfigError`.
    """
    ours = signal.getsignal(signal.SIGTERM)
    try:
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            asked = loop.create_task(_check_once(settings, queue=queue))
            loop.add_signal_handler(signal.SIGTERM, asked.cancel)  # an exit from within would tear a call apart
            loop.run_until_complete(asked)
    except asyncio.CancelledError:
        sys.exit(0)
    finally:
        signal.signal(signal.SIGTERM, ours)  # a loop that closes leaves the default, which would be no clean end


async def _check_once(settings: Settings, *, queue: bool) -> None:
    from meter.runtime import Runtime, addressed

    runtime = Runtime(settings)
    try:
        await runtime.check()
    finally:
        await runtime.close()
    if queue:
        from meter.worker.queue import check_queue

        with suppress(RedisUnavailable):
            await addressed(settings, partial(check_queue, settings))
