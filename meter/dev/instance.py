"""The running `meter dev` of a folder: `server.json` in its data directory, for commands and a `Meter` beside it.

Written when everything runs, readable by its owner only (a store's URL may hold a password), and removed at the end.
One that a killed run left behind names a process that is gone and counts for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from meter.config import Settings, is_set
from meter.dev.redis_server import start_time

NAME = "server.json"

SHARED = ("redis_url", "store_url", "key_prefix", "partitions", "decimal_places", "ledger_file", "test_clock")
"""Settings that every process of a deployment needs alike."""


class Instance(BaseModel):
    """What is known of it."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started: str
    url: str
    settings: Mapping[str, Any]


def write_instance(data_dir: Path, settings: Settings, url: str) -> None:
    """Writes the file. Raises `OSError`."""
    shared = {name: getattr(settings, name) for name in SHARED}
    for name in ("store_url", "ledger_file"):
        shared[name] = _absolute(str(shared[name]))
    pid = os.getpid()
    instance = Instance(pid=pid, started=start_time(pid) or "", url=url, settings=shared)
    path, draft = data_dir / NAME, data_dir / f"{NAME}.tmp"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(instance.model_dump_json())
    draft.replace(path)


def forget_instance(data_dir: Path) -> None:
    """Removes the file, if it is there."""
    (data_dir / NAME).unlink(missing_ok=True)


def running_instance(data_dir: Path) -> Instance | None:
    """The instance that runs in a data directory; None when none does."""
    try:
        instance = Instance.model_validate_json((data_dir / NAME).read_bytes())
    except (OSError, ValidationError):
        return None
    return instance if start_time(instance.pid) == instance.started else None


def settings_beside(data_dir: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings of the instance that runs there, by field name, but for those that the environment has; nothing
    when the environment names a Redis or a store: it is another deployment then.
    """
    if is_set("METER_REDIS_URL", environment) or is_set("METER_STORE_URL", environment):
        return {}
    instance = running_instance(data_dir)
    if instance is None:
        return {}
    return {
        name: value for name, value in instance.settings.items() if not is_set(f"METER_{name.upper()}", environment)
    }


def _absolute(value: str) -> str:
    """A path that means the same from any folder; a URL of no file stays as it is."""
    head = "sqlite:///"
    if value.startswith(head):
        return f"{head}{Path(value.removeprefix(head)).absolute()}"
    return str(Path(value).absolute()) if value and "://" not in value and value != "none" else value
