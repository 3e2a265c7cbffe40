"""One metered request, whoever carries it: the ASGI middleware or the reverse proxy.

Credits are held before the request is served, usage is read while the response passes by, and the hold is settled
once. Knows headers, statuses and bytes; knows no ASGI, no socket and no upstream.
"""

from __future__ import annotations

from meter.charging.admission import Admission, Admitted
from meter.charging.charge import Charge, Charger
from meter.charging.paths import MeteredPaths
from meter.charging.policy import ChargePolicy, Ending, Missing
from meter.charging.settlements import BackgroundSettlements

__all__ = [
    "Admission",
    "Admitted",
    "BackgroundSettlements",
    "Charge",
    "ChargePolicy",
    "Charger",
    "Ending",
    "MeteredPaths",
    "Missing",
]
