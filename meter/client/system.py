"""The Python API of the deployment itself, a part of `Credits` in meter/client/credits.py."""

from __future__ import annotations

from meter.client.calls import Calls
from meter.contract.answers import Refusal
from meter.contract.system import SystemStatus


class SystemCalls(Calls):
    """Whether everything works that has to."""

    async def system_status(self) -> SystemStatus | Refusal:
        """How the deployment is: its processes, Redis, what waits for the store, and the store."""
        return await self._call("system_status", SystemStatus)
