"""How a process that goes on begins: its log, what is odd about its environment, and one line that says what runs."""

from __future__ import annotations

import os
from importlib.metadata import version

from meter.config import Settings, remarks
from meter.log import configure, logger, without_password

_log = logger("meter")


def begin_log(settings: Settings) -> None:
    """Sends the log to stderr as the settings say, and warns of what nobody reads."""
    configure(settings.log_format, settings.log_level)
    for remark in remarks(os.environ):
        _log.warning(remark)


def tell_start(process: str, **fields: object) -> None:
    """The one line that says what has started, and on what."""
    _log.info(f"meter {process} starts", version=version("meter-sidecar"), **fields)


def ends_of(settings: Settings) -> dict[str, object]:
    """The Redis and the store of a process, as they may be shown."""
    return {
        "redis": without_password(settings.redis_url),
        "store": without_password(settings.store_url),
        "partitions": settings.partitions,
    }


def address_of(settings: Settings) -> str:
    """Where the API of these settings listens, as a URL."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"
