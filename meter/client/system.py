"""The Python API of the deployment itself, a part of `Credits` in meter/client/credits.py."""

from __future__ import annotations

from meter.client.calls import Calls
from meter.contract.answers import Refusal
from meter.contract.system import Findings, SystemStatus


class SystemCalls(Calls):
    """Whether everything works that has to."""

    async def system_status(self) -> SystemStatus | Refusal:
        """How the deployment is: its processes, Redis, what waits for the store, and the store."""
        return await self._call("system_status", SystemStatus)

    async def doctor(self, only: str | None = None) -> Findings | Refusal:
        """What every check found, or one of them, and what to do about it."""
        return await self._call("doctor", Findings, query={} if only is None else {"only": only})
