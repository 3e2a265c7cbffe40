"""Official clients of Gemini, Cohere, Ollama and Bedrock through the proxy, streamed and not: charged as the local
upstream tells them. Those of OpenAI and Anthropic are in test_sdks.py. `pip install --group clients` brings them.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from meter import Meter
from tests.proxy.proxied import USER, proxied
from tests.proxy.upstream import Asked, Reply

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
]
"""Clients leave their connections to the garbage collector."""

WHO_IS = ("X-User-Id", USER)
WHO = dict((WHO_IS,))
GEMINI = {"promptTokenCount": 19, "candidatesTokenCount": 10, "thoughtsTokenCount": 5, "totalTokenCount": 34}
COHERE = {
    "billed_units": {"input_tokens": 19, "output_tokens": 10},
    "tokens": {"input_tokens": 90, "output_tokens": 10},
}
OLLAMA = {"prompt_eval_count": 19, "eval_count": 10, "eval_duration": 5, "total_duration": 7}
BEDROCK = {"inputTokens": 19, "outputTokens": 10, "totalTokens": 29}


def event(kind: str, document: object) -> bytes:
    """A message of an AWS event stream."""
    told = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
        for name, value in told.items()
    )
    payload = orjson.dumps(document)
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


async def gemini(asked: Asked, reply: Reply) -> None:
    parts = [{"content": {"role": "model", "parts": [{"text": "Hello!"}]}, "finishReason": "STOP"}]
    whole = {"candidates": parts, "modelVersion": "m", "usageMetadata": GEMINI}
    if "streamGenerateContent" not in asked.target:
        await reply.json(orjson.dumps(whole))
        return
    await reply.stream()
    first = {**whole, "usageMetadata": {"promptTokenCount": 19, "totalTokenCount": 19}}
    for document in (first, whole):
        await reply.event(orjson.dumps(document).decode())
    await reply.chunk(b"")


async def cohere(asked: Asked, reply: Reply) -> None:
    if not orjson.loads(asked.body).get("stream"):
        message = {"role": "assistant", "content": [{"type": "text", "text": "Hello!"}]}
        await reply.json(orjson.dumps({"id": "1", "finish_reason": "COMPLETE", "message": message, "usage": COHERE}))
        return
    await reply.stream()
    delta = {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hello!"}}}}
    end = {"type": "message-end", "id": "1", "delta": {"finish_reason": "COMPLETE", "usage": COHERE}}
    for document in ({"type": "message-start", "id": "1", "delta": {"message": {"role": "assistant"}}}, delta, end):
        await reply.chunk(b"event: " + document["type"].encode() + b"\ndata: " + orjson.dumps(document) + b"\n\n")  # type: ignore[attr-defined]
    await reply.chunk(b"")


async def ollama(asked: Asked, reply: Reply) -> None:
    head = {"model": "m", "created_at": "2026-11-30T00:00:00Z", "message": {"role": "assistant", "content": "Hello!"}}
    end = {**head, "done": True, "done_reason": "stop", **OLLAMA}
    if orjson.loads(asked.body).get("stream") is False:
        await reply.json(orjson.dumps(end))
        return
    await reply.stream(content_type="application/x-ndjson")
    for document in ({**head, "done": False}, end):
        await reply.chunk(orjson.dumps(document) + b"\n")
    await reply.chunk(b"")


async def bedrock(asked: Asked, reply: Reply) -> None:
    if not asked.target.endswith("-stream"):
        message = {"role": "assistant", "content": [{"text": "Hello!"}]}
        told = {"output": {"message": message}, "stopReason": "end_turn", "usage": BEDROCK, "metrics": {"latencyMs": 1}}
        await reply.json(orjson.dumps(told))
        return
    await reply.stream(content_type="application/vnd.amazon.eventstream")
    for kind, document in (
        ("messageStart", {"role": "assistant"}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hello!"}}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"usage": BEDROCK, "metrics": {"latencyMs": 1}}),
    ):
        await reply.chunk(event(kind, document))
    await reply.chunk(b"")


def ask_gemini(url: str, *, streams: bool) -> int:
    genai = pytest.importorskip("google.genai", reason="pip install --group clients")
    client = genai.Client(api_key="k", http_options={"base_url": url, "headers": WHO})
    if not streams:
        return int(client.models.generate_content(model="m", contents="hi").usage_metadata.total_token_count)
    *_, last = client.models.generate_content_stream(model="m", contents="hi")
    return int(last.usage_metadata.total_token_count)


def ask_cohere(url: str, *, streams: bool) -> int:
    sdk = pytest.importorskip("cohere", reason="pip install --group clients")
    http = pytest.importorskip("httpx", reason="comes with cohere").Client(headers=WHO)
    client = sdk.ClientV2(api_key="k", base_url=url, httpx_client=http)
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    if not streams:
        told = client.chat(**asked).usage.billed_units
    else:
        *_, last = client.chat_stream(**asked)
        told = last.delta.usage.billed_units
    return int(told.input_tokens + told.output_tokens)


def ask_ollama(url: str, *, streams: bool) -> int:
    sdk = pytest.importorskip("ollama", reason="pip install --group clients")
    client = sdk.Client(host=url, headers=WHO)
    told = client.chat(model="m", messages=[{"role": "user", "content": "hi"}], stream=streams)
    if streams:
        *_, told = told
    return int(told["prompt_eval_count"] + told["eval_count"])


def ask_bedrock(url: str, *, streams: bool) -> int:
    sdk = pytest.importorskip("boto3", reason="pip install --group clients")
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s"}
    client = sdk.client("bedrock-runtime", region_name="eu-central-1", endpoint_url=url, **keys)
    client.meta.events.register("before-sign.*", lambda request, **_: request.headers.add_header(*WHO_IS))
    asked = {"modelId": "m", "messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    if not streams:
        return int(client.converse(**asked)["usage"]["totalTokens"])
    told = [part["metadata"] for part in client.converse_stream(**asked)["stream"] if "metadata" in part]
    return int(told[0]["usage"]["totalTokens"])


CLIENTS = {
    "gemini": (gemini, ask_gemini, 34),
    "cohere": (cohere, ask_cohere, 29),
    "ollama": (ollama, ask_ollama, 29),
    "bedrock": (bedrock, ask_bedrock, 29),
}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("name", CLIENTS)
async def test_an_official_client_is_charged_what_it_is_told(bank: Meter, name: str, streams: bool) -> None:
    script, ask, tokens = CLIENTS[name]
    asked: Callable[..., int] = ask
    async with proxied(script, bank) as proxy:
        told = await asyncio.to_thread(asked, f"http://127.0.0.1:{proxy.port}", streams=streams)
        await proxy.settles_at(1000 - tokens)

    assert told == tokens


@pytest.mark.parametrize("name", CLIENTS)
async def test_an_official_client_shows_why_it_was_refused(bank: Meter, name: str) -> None:
    """C10."""
    script, ask, _ = CLIENTS[name]
    await bank.deduct("user-1", 990)

    async with proxied(script, bank) as proxy:
        with pytest.raises(Exception, match=r"(?i)credits") as refusal:
            await asyncio.to_thread(ask, f"http://127.0.0.1:{proxy.port}", streams=False)

    assert "402" in str(refusal.value) or name == "bedrock"
