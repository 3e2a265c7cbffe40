"""meter: prepaid credits for paid APIs, decided atomically in Redis.

`Meter` in process, `MeterClient` over HTTP, both with the calls of `Credits`.
"""

from __future__ import annotations

from meter.client import MeterClient
from meter.credits import Credits, Hold, Refused
from meter.local import Meter
from meter.model import Refusal

__all__ = ["Credits", "Hold", "Meter", "MeterClient", "Refusal", "Refused"]
