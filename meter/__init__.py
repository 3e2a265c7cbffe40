"""meter: prepaid credits for paid APIs, decided atomically in Redis.

`Meter` in process, `MeterClient` over HTTP, both with the calls of `Credits`; `CreditDeductionMiddleware` for the
routes of an ASGI application.
"""

from __future__ import annotations

from meter.client.credits import Credits, Hold, HoldRefused
from meter.client.over_http import MeterClient
from meter.contract.answers import Refusal
from meter.in_process import Meter
from meter.middleware import CreditDeductionMiddleware

Refused = HoldRefused
"""The name of `HoldRefused` until 0.2."""

__all__ = ["CreditDeductionMiddleware", "Credits", "Hold", "HoldRefused", "Meter", "MeterClient", "Refusal", "Refused"]
