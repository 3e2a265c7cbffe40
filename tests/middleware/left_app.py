"""A FastAPI application with the metering outside of a middleware of its own, for any ASGI server to serve.

`/api/stream/{told}` sends a piece each 20 ms: the first tells that usage where it is not 0, the last, after `?pieces=`,
tells 9.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import FastAPI, Request
from starlette.responses import Response, StreamingResponse

from meter import CreditDeductionMiddleware, Meter

app = FastAPI()


@app.middleware("http")
async def passes_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)


@app.get("/api/stream/{told}")
async def stream(told: int, pieces: int = 1000) -> StreamingResponse:
    async def all_pieces() -> AsyncIterator[str]:
        yield f'data: {{"total_token": {told}}}\n\n' if told else 'data: {"text": "hi"}\n\n'
        for _ in range(pieces):
            await asyncio.sleep(0.02)
            yield 'data: {"text": "hi"}\n\n'
        yield 'data: {"total_token": 9}\n\n'

    return StreamingResponse(all_pieces(), media_type="text/event-stream")


app.add_middleware(
    CreditDeductionMiddleware,
    credit_service=Meter.connect(os.environ["METER_REDIS_URL"], store_url="none", redis_timeout_ms=10_000),
    path_prefix="/api",
    **({"on_disconnect": "release"} if os.environ.get("LEAVING") == "free" else {}),  # type: ignore[arg-type]
)
