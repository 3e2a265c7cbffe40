"""Settings that a file may have instead: secrets, and URLs with passwords. `METER_X_FILE` names that of `METER_X`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from meter.errors import ConfigError

IN_FILES = (
    "redis_url",
    "queue_url",
    "store_url",
    "gateway_secret",
    "gateway_secret_other",
    "code_secret",
    "payments_secret",
    "payments_key",
)
"""By their names as fields of `Settings`."""


def url_again(url: str, path: str) -> str:
    """The URL that its file has now; the one that it had at the start where it has none that can be read."""
    try:
        return Path(path).read_text(encoding="utf-8").strip() or url
    except (OSError, ValueError):
        return url


def files_of(given: Mapping[str, object], prefix: str) -> Iterator[tuple[str, str]]:
    """The settings that nobody gives and that a file has, by field name, with it. Raises `ConfigError` for both."""
    environment = {name.upper(): value for name, value in os.environ.items() if value}
    for name in IN_FILES:
        variable = f"{prefix}{name.upper()}"
        path = str(given.get(f"{name}_file") or environment.get(f"{variable}_FILE") or "")
        if not path or name in given:
            continue
        if variable in environment:
            raise ConfigError(f"{variable} and {variable}_FILE are both set: leave one of them out")
        yield name, path


def text_of_file(variable: str, path: str) -> str:
    """What a file has for a variable. Raises `ConfigError`."""
    try:
        found = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"{variable}_FILE={path}: {why}") from None
    if not found:
        raise ConfigError(f"{variable}_FILE={path}: it is empty")
    return found
