"""Code of one's own behind a setting: what an installed package offers as an entry point, or `module:attribute`."""

from __future__ import annotations

import importlib
import re
import sys
from importlib.metadata import entry_points
from pathlib import Path

from meter.errors import ConfigError

_ATTRIBUTE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


def offered(setting: str, group: str, name: str) -> object | None:
    """The entry point of that name in a group; None when no installed package has one. Raises `ConfigError`."""
    found = entry_points(group=group, name=name)
    for entry in found:
        try:
            return entry.load()  # type: ignore[no-any-return]
        except Exception as error:
            raise ConfigError(f"{setting}: the entry point {name} of {group} fails: {in_a_line(error)}") from error
    return None


def offers(group: str) -> list[str]:
    """The names of the entry points of a group."""
    return sorted({entry.name for entry in entry_points(group=group)})


def is_attribute(text: str) -> bool:
    """Whether a text has the form `module:attribute`."""
    return _ATTRIBUTE.fullmatch(text) is not None


def attribute(setting: str, text: str) -> object:
    """What `module:attribute` names; the module may lie in the folder of the process. Raises `ConfigError`."""
    module, _, path = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # behind everything that is installed
    try:
        found: object = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except Exception as error:
        raise ConfigError(f"{setting}: {text} cannot be loaded: {in_a_line(error)}") from error
    return found


def in_a_line(error: Exception) -> str:
    """What somebody else's code raised."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
