"""A local receiver of webhooks that verifies every signature with the standardwebhooks library."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web
from standardwebhooks import Webhook


@dataclass
class Received:
    """One request: its headers in lower case and its body."""

    headers: dict[str, str]
    raw: bytes
    body: Any

    @property
    def id(self) -> str:
        """The webhook-id."""
        return self.headers["webhook-id"]

    def signed_by(self, secret: str | None) -> bool:
        """Whether a signature of that secret is among those sent."""
        try:
            Webhook(secret or "").verify(self.raw, self.headers)
        except Exception:
            return False
        return True


@dataclass
class Receiver:
    """Answers with `answers` in order, then with 200; no sooner than it `may_answer`."""

    url: str = ""
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.Response:
        raw = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(Received(headers, raw, orjson.loads(raw)))
        await self.may_answer.wait()
        status, more = self.answers.pop(0) if self.answers else (200, {})
        return web.Response(status=status, headers=more)

    def kinds(self) -> list[str]:
        """The kinds received, in order."""
        return [one.body["type"] for one in self.received]


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on a port of its own."""
    found = Receiver()
    found.may_answer.set()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", found.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        found.url = f"http://{host}:{port}/hook"
        yield found
    finally:
        await runner.cleanup()
