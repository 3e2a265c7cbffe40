"""The Python API of the jobs, a part of `Credits` in meter/client/credits.py."""

from __future__ import annotations

from meter.client.calls import Calls
from meter.contract.answers import Refusal
from meter.contract.jobs import Allocated, Applied, Attempted, CarriedOut, Expired, Reminded, RolledUp, Rotated, Warned


class JobCalls(Calls):
    """What the worker does by itself, done by hand: a page at a time, again while the answer says `more`."""

    async def expire(self) -> Expired | Refusal:
        """Ends credits and holds that are due. No balance waits for it."""
        return await self._call("expire", Expired, body={})

    async def allocate(self) -> Allocated | Refusal:
        """Grants every period of a subscription that has begun."""
        return await self._call("allocate", Allocated, body={})

    async def apply_pending(self) -> Applied | Refusal:
        """Applies grants that are durable and that Redis does not seem to have."""
        return await self._call("apply_pending", Applied, body={})

    async def remind(self) -> Reminded | Refusal:
        """Makes the alerts of credits that end soon, of what the store knows."""
        return await self._call("remind", Reminded, body={})

    async def deliver(self) -> Attempted | Refusal:
        """Delivers alerts that are due. Waits a few seconds for them, and for no target that hangs."""
        return await self._call("deliver", Attempted, body={})

    async def roll_up(self) -> RolledUp | Refusal:
        """Counts what the usage figures do not have yet."""
        return await self._call("roll_up", RolledUp, body={})

    async def warn(self) -> Warned | Refusal:
        """Makes the alerts of credits that run out soon, of what the store knows."""
        return await self._call("warn", Warned, body={})

    async def buy(self) -> CarriedOut | Refusal:
        """Carries out requests to buy credits that are due."""
        return await self._call("buy", CarriedOut, body={})

    async def rotate(self) -> Rotated | Refusal:
        """Lets Redis forget what is older than the idempotency window."""
        return await self._call("rotate", Rotated, body={})
