"""A proxy under test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import uvicorn

from meter import Credits, Meter, Refusal
from meter.proxy.app import Proxy
from meter.proxy.options import ProxyOptions
from meter.proxy.server import server_of
from tests.proxy.serving import served, until_it
from tests.proxy.upstream import FakeUpstream, Script, upstream

USER = "user-1"


async def balance(bank: Credits, user: str = USER) -> tuple[Decimal | int, Decimal | int]:
    """What a user has available and reserved."""
    found = await bank.balance(user)
    assert not isinstance(found, Refusal)
    return found.available, found.reserved


@dataclass
class Proxied:
    """A running proxy: its port, its upstream, and the meter behind it."""

    port: int
    upstream: FakeUpstream
    bank: Meter
    server: uvicorn.Server

    @property
    def clients(self) -> int:
        """Connections of clients that the proxy believes to be there."""
        return len(self.server.server_state.connections)

    async def balance(self, user: str = USER) -> tuple[Decimal | int, Decimal | int]:
        """What a user has available and reserved."""
        return await balance(self.bank, user)

    async def settles_at(self, available: object, user: str = USER) -> None:
        """Nothing is held any more, and that much is left."""

        async def is_settled() -> bool:
            return (await self.balance(user))[1] == 0

        await until_it(is_settled, "the hold is settled")
        assert (await self.balance(user))[0] == Decimal(str(available))


@asynccontextmanager
async def proxied(
    script: Script, bank: Meter, *, credits_: Credits | None = None, patiently: bool = True, **changed: Any
) -> AsyncIterator[Proxied]:
    """A proxy in front of an upstream; `changed` are its options."""
    async with upstream(script) as fake:
        options = ProxyOptions(**{"upstream": fake.url, **changed})
        proxy = Proxy(options, credits_ or bank)
        server = server_of(proxy, options)
        async with served(server, patiently=patiently) as port:
            yield Proxied(port, fake, bank, server)
