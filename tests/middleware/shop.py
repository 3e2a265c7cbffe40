"""A metered application: routes that respond in every way, behind the middleware."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from meter import Credits
from meter.middleware import CreditDeductionMiddleware


@dataclass
class Shop:
    """`app` is the application without the middleware; what a test sets is what its routes answer."""

    json: object = field(default_factory=lambda: {"message": "hi", "total_token": 42})
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    error: Exception | None = None
    pieces: list[bytes] = field(default_factory=list)
    media_type: str = "text/event-stream"
    calls: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """Lets a stream go on after its first piece."""
    reserved: Decimal | None = None

    async def answer(self, request: Request) -> Response:
        """Any JSON."""
        self.calls += 1
        self.reserved = getattr(getattr(request.state, "credit_reservation", None), "amount", None)
        if self.error is not None:
            raise self.error
        return JSONResponse(self.json, self.status, self.headers)

    async def raw(self, _: Request) -> Response:
        """The pieces as one body."""
        self.calls += 1
        return Response(b"".join(self.pieces), self.status, self.headers, self.media_type)

    async def stream(self, _: Request) -> Response:
        """The pieces, one by one."""
        self.calls += 1

        async def pieces() -> AsyncIterator[bytes]:
            for number, piece in enumerate(self.pieces):
                if number == 1:
                    await self.go_on.wait()
                yield piece
            if self.error is not None:
                raise self.error

        return StreamingResponse(pieces(), self.status, self.headers, self.media_type)

    @property
    def app(self) -> Starlette:
        methods = ["GET", "POST", "OPTIONS", "PUT"]
        return Starlette(
            routes=[
                Route("/api/stream", self.stream, methods=methods),
                Route("/api/raw", self.raw, methods=methods),
                Route("/api/{rest:path}", self.answer, methods=methods),
                Route("/public", self.answer, methods=methods),
            ]
        )


@asynccontextmanager
async def calling(shop: Shop, bank: Credits, **options: object) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the metered application, in process."""
    metered = CreditDeductionMiddleware(shop.app, bank, **options)  # type: ignore[arg-type]
    transport = httpx2.ASGITransport(app=metered, raise_app_exceptions=False)
    headers = {"X-User-Id": "user-1"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://shop", headers=headers) as client:
        yield client
