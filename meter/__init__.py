"""meter: prepaid credits for paid APIs, decided atomically in Redis.

`Meter` in process, `MeterClient` over HTTP, both with the calls of `Credits`; `CreditDeductionMiddleware` for the
routes of an ASGI application.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meter.client.calls import NULL
    from meter.client.credits import Credits, Hold, HoldRefused
    from meter.client.over_http import MeterClient
    from meter.contract.answers import Refusal
    from meter.in_process import Meter
    from meter.middleware import CreditDeductionMiddleware

    Refused = HoldRefused
    """The name of `HoldRefused` until 0.2."""

__all__ = [
    "NULL",
    "CreditDeductionMiddleware",
    "Credits",
    "Hold",
    "HoldRefused",
    "Meter",
    "MeterClient",
    "Refusal",
    "Refused",
]

_HOMES = {
    "CreditDeductionMiddleware": ("meter.middleware", "CreditDeductionMiddleware"),
    "Credits": ("meter.client.credits", "Credits"),
    "Hold": ("meter.client.credits", "Hold"),
    "HoldRefused": ("meter.client.credits", "HoldRefused"),
    "NULL": ("meter.client.calls", "NULL"),
    "Meter": ("meter.in_process", "Meter"),
    "MeterClient": ("meter.client.over_http", "MeterClient"),
    "Refusal": ("meter.contract.answers", "Refusal"),
    "Refused": ("meter.client.credits", "HoldRefused"),
}

if not TYPE_CHECKING:  # a type checker would believe in any name

    def __getattr__(name):
        """Imports a name's module when it is first asked for: all of them take 1.3 s of CPU, a client half of that."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, attribute = _HOMES[name]
        return globals().setdefault(name, getattr(import_module(module), attribute))

    def __dir__():
        return sorted({*globals(), *__all__})
