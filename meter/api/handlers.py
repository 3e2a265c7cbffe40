"""Every call of the surface by name: the one table from which routes and the in-process `Meter` are served."""

from __future__ import annotations

from collections.abc import Mapping

from meter.api.exchange import Coroutine, awaitable
from meter.api.hot import HotHandlers, Services
from meter.api.management import ManagementHandlers


def coroutines_of(services: Services) -> Mapping[str, Coroutine]:
    """Row name of `meter.surface` -> coroutine."""
    hot = HotHandlers(services)
    management = ManagementHandlers(services, hot)
    return {
        "add": management.add,
        "deduct": awaitable(hot.deduct),
        "reserve": awaitable(hot.reserve),
        "reservations": management.reservations,
        "reservation": awaitable(hot.reservation),
        "commit": awaitable(hot.commit),
        "release": awaitable(hot.release),
        "extend": awaitable(hot.extend),
        "refund": management.refund,
        "batch": management.batch,
        "balance": awaitable(hot.balance),
        "grants": management.grants,
        "void": management.void,
        "explain": awaitable(hot.explain),
        "user": management.user,
        "configure": management.configure,
        "clock": management.clock,
        "set_clock": management.set_clock,
    }
