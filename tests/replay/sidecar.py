"""A sidecar under uvicorn in this event loop, which can be stopped, started again, and interfered with."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import aiohttp
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from meter.app import create_app
from meter.config import Settings
from meter.engine.redis import RedisGateway

Hook = Callable[[str, str], Awaitable[int | None]]
"""Called with method and path before a request; a status is answered instead, None lets the request through."""


class Sidecar:
    """One sidecar at a port of its own."""

    def __init__(self, gateway: RedisGateway, store_url: str = "none") -> None:
        self._gateway = gateway
        self._store_url = store_url
        self._task: asyncio.Task[None] | None = None
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port: int = found.getsockname()[1]
        self.hook: Hook | None = None
        self.lose_answers_of: str | None = None
        """Requests whose path ends so are done, but their next answer is lost."""
        self.answers_lost = 0
        self.calls: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = self._intercept(create_app(Settings(redis_timeout_ms=10_000, store_url=self._store_url), self._gateway))
        config = uvicorn.Config(app, port=self.port, access_log=False, log_level="error", lifespan="on")
        self._server = uvicorn.Server(config)
        self._task = asyncio.create_task(self._serve())
        while not self._server.started:
            assert not self._task.done(), "the sidecar did not start"
            await asyncio.sleep(0.005)

    async def _serve(self) -> None:
        with contextlib.suppress(SystemExit):  # uvicorn's way to say that it did not start
            await self._server._serve()

    async def stop(self) -> None:
        """Closes the port and every connection, whatever they are waiting for."""
        if self._task is not None:
            for listener in self._server.servers:
                listener.close()
            for connection in list(self._server.server_state.connections):
                transport = connection.transport
                if transport is not None:
                    transport.abort()
            self._server.should_exit = True
            await self._task
            self._task = None

    async def deduct(self, user_id: str, amount: int) -> None:
        """Spends credits that no replay knows of."""
        body = {"user_id": user_id, "amount": amount}
        async with aiohttp.ClientSession() as session, session.post(f"{self.url}/credits/deduct", json=body) as answer:
            assert answer.status == 200

    def _intercept(self, app: ASGIApp) -> ASGIApp:
        async def intercepted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            method, path = scope["method"], scope["path"]
            self.calls.append((method, path))
            status = None if self.hook is None else await self.hook(method, path)
            if status is not None:
                await send({"type": "http.response.start", "status": status, "headers": [(b"retry-after", b"0")]})
                await send({"type": "http.response.body", "body": b"not JSON"})
            elif self.lose_answers_of is not None and path.endswith(self.lose_answers_of):
                self.lose_answers_of = None
                self.answers_lost += 1
                await app(scope, receive, _nowhere)
                await send({"type": "http.response.start", "status": 502, "headers": []})
                await send({"type": "http.response.body", "body": b""})
            else:
                await app(scope, receive, send)

        return intercepted


async def _nowhere(_: object) -> None:
    """Where a lost answer goes."""
