"""What the sidecar is compared with: a bare echo, the plain EVALSHA per request that people write, and the original.

A process of its own: `python -m meter.bench.peers echo|evalsha|original --port …`, served by uvicorn as the sidecar is.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable
from hashlib import sha1
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import orjson
import redis.asyncio
import uvicorn
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from meter.bench.traffic import user_name

ORIGINAL_PACKAGES = ("credit_management", "fastapi")

_DEDUCT = """
local balance = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
local amount = tonumber(ARGV[2])
if balance < amount then return -1 end
return redis.call('HINCRBY', KEYS[1], ARGV[1], -amount)
"""


class _Deduct(BaseModel):
    user_id: str
    amount: int


def original_installed() -> bool:
    """Whether `credit-management` and what it needs can be imported."""
    return all(find_spec(name) is not None for name in ORIGINAL_PACKAGES)


def echo_app() -> ASGIApp:
    """Starlette that answers the JSON that it was sent."""

    async def echo(request: Request) -> Response:
        return JSONResponse(await request.json())

    return Starlette(routes=[Route("/echo", echo, methods=["POST"])])


def evalsha_app(redis_url: str, users: int) -> ASGIApp:
    """A deduct as a first version has it: parse, await one EVALSHA, answer."""
    client = redis.asyncio.Redis.from_url(redis_url, max_connections=256)
    digest = sha1(_DEDUCT.encode(), usedforsecurity=False).hexdigest()

    async def deduct(request: Request) -> Response:
        body = _Deduct.model_validate(orjson.loads(await request.body()))
        left = await client.evalsha(digest, 1, "plain:credits", body.user_id, str(body.amount))
        if left < 0:
            return JSONResponse({"detail": "insufficient credits"}, 402)
        return JSONResponse({"user_id": body.user_id, "credits": left})

    async def start() -> None:
        await client.script_load(_DEDUCT)
        await client.hset("plain:credits", mapping={user_name(number): 10**12 for number in range(users)})

    return _Started(Starlette(routes=[Route("/credits/deduct", deduct, methods=["POST"])]), start)


def original_app(users: int) -> ASGIApp:
    """`credit-management` 0.4.0 on its in-memory store, with the method that its routes call and it does not have."""
    service: Any = import_module("credit_management.services.credit_service").CreditService

    async def get_user_credits(self: object, user_id: str) -> int:
        return int(await self._db.get_user_credits(user_id))  # type: ignore[attr-defined]

    service.get_user_credits = get_user_credits
    router: Any = import_module("credit_management.api.router")
    app: Any = import_module("fastapi").FastAPI()
    app.include_router(router.router)

    async def start() -> None:
        for number in range(users):
            await router._credit_service.add_credits(user_id=user_name(number), amount=10**12)

    return _Started(app, start)


class _Started:
    """An application with something to do before its first request."""

    def __init__(self, app: ASGIApp, start: Callable[[], Awaitable[None]]) -> None:
        self._app = app
        self._start: Callable[[], Awaitable[None]] | None = start

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Does it when the server tells that it starts."""
        start, self._start = self._start, None
        if start is not None:
            await start()
        await self._app(scope, receive, send)


def main() -> None:
    """Serves one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("which", choices=("echo", "evalsha", "original"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--redis-url", default=os.environ.get("METER_REDIS_URL", ""))
    parser.add_argument("--users", type=int, default=1)
    asked = parser.parse_args()
    apps: dict[str, Callable[[], ASGIApp]] = {
        "echo": echo_app,
        "evalsha": lambda: evalsha_app(asked.redis_url, asked.users),
        "original": lambda: original_app(asked.users),
    }
    app = apps[asked.which]()
    uvicorn.run(app, host="127.0.0.1", port=asked.port, access_log=False, log_level="warning", http="httptools")


if __name__ == "__main__":
    main()
