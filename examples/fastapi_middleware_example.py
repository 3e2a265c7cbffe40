"""A FastAPI application whose routes below /api are paid with credits, by what each response says it used.

    pip install meter-sidecar[testing] fastapi
    python examples/fastapi_middleware_example.py

It keeps its credits in the Redis of METER_REDIS_URL; without one, in memory until it stops. Try it:

    # Add credits
    curl -X POST http://localhost:8000/credits/add \\
      -H "Content-Type: application/json" \\
      -d '{"user_id": "user-1", "amount": 100, "description": "Welcome bonus"}'

    # Pays with what was used: look at X-Credits-Deducted
    curl -i -X POST http://localhost:8000/api/chat \\
      -H "Content-Type: application/json" -H "X-User-Id: user-1" -H "X-Estimated-Tokens: 50" \\
      -d '{"message": "hello there"}'

    # A stream is metered, too; it pays at its end
    curl -N http://localhost:8000/api/stream -H "X-User-Id: user-1"

    # 402: nobody may hold more than there is
    curl -i http://localhost:8000/api/stream -H "X-User-Id: user-1" -H "X-Estimated-Tokens: 5000"

    # 401: nobody to pay
    curl -i http://localhost:8000/api/stream

    # Free
    curl http://localhost:8000/api/health

    # What is left
    curl http://localhost:8000/credits/balance/user-1
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from meter import CreditDeductionMiddleware, Meter


def open_meter() -> Meter:
    """The credits: in Redis where there is one, else in memory."""
    if os.environ.get("METER_REDIS_URL"):
        return Meter.connect()
    from meter.testing import fake_meter  # noqa: PLC0415 - needs the testing extra

    return fake_meter()


meter = open_meter()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """The meter lives as long as the application."""
    async with meter:
        yield


app = FastAPI(title="An API with credits", lifespan=lifespan)
app.mount("/credits", meter.api)
app.add_middleware(
    CreditDeductionMiddleware,
    credit_service=meter,
    path_prefix="/api",  # only /api/* routes
    user_id_header="X-User-Id",
    estimated_tokens_header="X-Estimated-Tokens",
    default_estimated_tokens=20,
    response_usage_key="total_token",  # or "usage.total_tokens" for OpenAI-style
    skip_paths=("/api/health",),
)


class ChatRequest(BaseModel):
    """What a client says."""

    message: str


class ChatResponse(BaseModel):
    """What it gets; the middleware reads `total_token`."""

    message: str
    total_token: int


@app.post("/api/chat")
async def chat(body: ChatRequest) -> ChatResponse:
    """An echo, at two credits a word."""
    return ChatResponse(message=f"Echo: {body.message}", total_token=2 * len(body.message.split()))


@app.get("/api/stream")
async def stream() -> StreamingResponse:
    """Server-sent events; the last one tells the usage."""

    async def events() -> AsyncIterator[str]:
        for word in ("one", "two", "three"):
            yield f'data: {{"text": "{word}"}}\n\n'
        yield 'data: {"total_token": 6}\n\n'

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/api/health")
async def health() -> dict[str, str]:
    """Costs nothing."""
    return {"status": "ok"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ.get("PORT", "8000")))
