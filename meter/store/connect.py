"""Which store a URL means. A driver is imported only when its store is opened."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import cast
from urllib.parse import parse_qsl

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from meter.errors import ConfigError
from meter.extension import attribute, in_a_line, is_attribute, offered, offers
from meter.store.base import Store

CALL_TIMEOUT_SECONDS = 30.0

ENTRY_POINTS = "meter.stores"
"""The group in which a package offers stores of its own, each under the scheme of its URLs."""

_SETTING = "METER_STORE_URL"
_MEMBERS = sorted(name for name in dir(Store) if not name.startswith("_"))
_PROPERTIES = frozenset(name for name in _MEMBERS if isinstance(getattr(Store, name), property))

# scheme: module, function, driver, extra of this package that brings it
_SQLITE = ("meter.store.sql.sqlite", "open_sqlite", "aiosqlite", "")
_POSTGRES = ("meter.store.sql.postgres", "open_postgres", "asyncpg", "postgres")
_MYSQL = ("meter.store.sql.mysql", "open_mysql", "asyncmy", "mysql")
_MONGO = ("meter.store.mongo.store", "open_mongo", "pymongo", "mongo")
_MEMORY = ("meter.store.memory.store", "open_memory", "", "")
_SCHEMES = {
    "sqlite": _SQLITE,
    "sqlite+aiosqlite": _SQLITE,
    "postgres": _POSTGRES,
    "postgresql": _POSTGRES,
    "postgresql+asyncpg": _POSTGRES,
    "mysql": _MYSQL,
    "mysql+asyncmy": _MYSQL,
    "mariadb": _MYSQL,
    "mariadb+asyncmy": _MYSQL,
    "mongodb": _MONGO,
    "mongodb+srv": _MONGO,
    "memory": _MEMORY,
}
_READ_BY_DRIVER = (_POSTGRES, _MONGO, _MEMORY)
_WITH_PASSWORDS = (_POSTGRES, _MYSQL, _MONGO)


def open_store(
    url: str, *, timeout_seconds: float = CALL_TIMEOUT_SECONDS, read_again: Callable[[], str] | None = None
) -> Store:
    """The store at `url`, not connected yet: `Store.open` does that. `timeout_seconds` bounds each of its calls.
    `read_again` tells the URL that a new connection is made by, on the stores that have users and passwords.

    Raises `ConfigError` for a URL of no known store, or one whose driver is not installed.
    """
    scheme = url.partition("://")[0]
    if scheme not in _SCHEMES or "://" not in url:
        return _store_of_ones_own(scheme, url, timeout_seconds)
    found = _SCHEMES[scheme]
    module, function, driver, extra = found
    if driver and find_spec(driver) is None:
        raise ConfigError(f"{_SETTING}: {scheme}:// needs a driver, pip install 'meter-sidecar[{extra}]'")
    opener = getattr(importlib.import_module(module), function)
    if found in _WITH_PASSWORDS:
        opener = partial(opener, read_again=read_again)
    if found in _READ_BY_DRIVER:
        return cast("Store", opener(url, timeout_seconds=timeout_seconds))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(f"{_SETTING}: not a URL that can be read, {scheme}://…") from None
    for name, value in parse_qsl(url.partition("?")[2], keep_blank_values=True):
        if not value:  # it would count as not given: `?ssl_ca=` as no TLS at all
            raise ConfigError(f"{_SETTING}: its option {name[:40]} has no value")
    return cast("Store", opener(parsed, timeout_seconds=timeout_seconds))


def _store_of_ones_own(scheme: str, url: str, timeout_seconds: float) -> Store:
    """What an entry point of that scheme opens, or `module:attribute`, which may be a scheme, too: each is called as
    the openers of our own stores are, with the whole URL.
    """
    opener = offered(_SETTING, ENTRY_POINTS, scheme) if "://" in url else None
    if opener is None and is_attribute(scheme):
        opener = attribute(_SETTING, scheme)
    if opener is None:
        known = ", ".join([*(name for name in _SCHEMES if "+" not in name), *offers(ENTRY_POINTS), "module:attribute"])
        raise ConfigError(f"{_SETTING}: {scheme[:20]!r} is no known kind of store; there are {known}")
    if not callable(opener):
        raise ConfigError(f"{_SETTING}: {scheme} is nothing that can be called")
    try:
        store = opener(url, timeout_seconds=timeout_seconds)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{_SETTING}: {scheme} opens no store: {in_a_line(error)}") from error
    missing = [name for name in _MEMBERS if name not in _PROPERTIES and not callable(getattr(store, name, None))]
    missing += sorted(name for name in _PROPERTIES if not hasattr(store, name))
    if missing:
        raise ConfigError(f"{_SETTING}: what {scheme} opens is no store, it lacks {', '.join(missing)}")
    return cast("Store", store)
