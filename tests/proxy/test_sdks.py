"""The official clients of OpenAI and Anthropic through the proxy, against an upstream that speaks their formats."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import orjson
import pytest

from meter import Meter
from tests.proxy.proxied import Proxied, proxied
from tests.proxy.upstream import Asked, Reply

if TYPE_CHECKING:
    import anthropic
    import openai

CHAT_USAGE = {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}
RESPONSES_USAGE = {
    "input_tokens": 36,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 123,
}


def chunk(choices: list[object], usage: object) -> str:
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return orjson.dumps({**head, "choices": choices, "usage": usage}).decode()


async def chat(asked: dict[str, object], reply: Reply) -> None:
    if not asked.get("stream"):
        message = {"role": "assistant", "content": "Hello!"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        head = {"id": "c-1", "object": "chat.completion", "created": 1, "model": "m"}
        await reply.json(orjson.dumps({**head, "choices": [choice], "usage": CHAT_USAGE}))
        return
    await reply.stream()
    for word in ("Hel", "lo!"):
        await reply.event(chunk([{"index": 0, "delta": {"role": "assistant", "content": word}}], None))
    await reply.event(chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}], None))
    if asked.get("stream_options") == {"include_usage": True}:
        await reply.event(chunk([], CHAT_USAGE))
    await reply.event("[DONE]")
    await reply.chunk(b"")


async def responses(asked: dict[str, object], reply: Reply) -> None:
    text = {"type": "output_text", "text": "Hello!", "annotations": []}
    message = {"type": "message", "id": "msg-1", "status": "completed", "role": "assistant", "content": [text]}
    body = {
        "id": "resp-1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "model": "m",
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": RESPONSES_USAGE,
    }
    if not asked.get("stream"):
        await reply.json(orjson.dumps(body))
        return
    await reply.stream()
    for event in (
        {
            "type": "response.created",
            "sequence_number": 0,
            "response": {**body, "status": "in_progress", "usage": None},
        },
        {
            "type": "response.output_text.delta",
            "sequence_number": 1,
            "item_id": "msg-1",
            "output_index": 0,
            "content_index": 0,
            "delta": "Hello!",
            "logprobs": [],
        },
        {"type": "response.completed", "sequence_number": 2, "response": body},
    ):
        await reply.chunk(b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), orjson.dumps(event)))
    await reply.chunk(b"")


async def messages(asked: dict[str, object], reply: Reply) -> None:
    text = {"type": "text", "text": "Hello!"}
    head = {"id": "msg-1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    usage = {"input_tokens": 25, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 3, "output_tokens": 1}
    if not asked.get("stream"):
        whole = {**head, "content": [text], "stop_reason": "end_turn", "usage": {**usage, "output_tokens": 15}}
        await reply.json(orjson.dumps(whole))
        return
    await reply.stream()
    delta = {"type": "text_delta", "text": "Hello!"}
    for event in (
        {"type": "message_start", "message": {**head, "content": [], "stop_reason": None, "usage": usage}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 15},
        },
        {"type": "message_stop"},
    ):
        await reply.chunk(b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), orjson.dumps(event)))
    await reply.chunk(b"")


async def provider(asked: Asked, reply: Reply) -> None:
    speak = {"/v1/chat/completions": chat, "/v1/responses": responses, "/v1/messages": messages}[asked.target]
    assert asked.all("authorization") == ["Bearer key"] or asked.all("x-api-key") == ["key"]
    await speak(orjson.loads(asked.body), reply)


@pytest.fixture(params=[False, True], ids=["plain", "injecting"])
async def proxy(bank: Meter, request: pytest.FixtureRequest) -> AsyncIterator[Proxied]:
    async with proxied(provider, bank, inject_include_usage=request.param) as found:
        yield found


@pytest.fixture
async def open_ai(proxy: Proxied) -> AsyncIterator[openai.AsyncOpenAI]:
    import openai  # noqa: PLC0415 - a second of CPU for each worker that only collects these tests

    headers = {"X-User-Id": "user-1"}
    url = f"http://127.0.0.1:{proxy.port}/v1"
    async with openai.AsyncOpenAI(api_key="key", base_url=url, default_headers=headers, max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(proxy: Proxied) -> AsyncIterator[anthropic.AsyncAnthropic]:
    import anthropic  # noqa: PLC0415 - the same

    headers = {"X-User-Id": "user-1"}
    url = f"http://127.0.0.1:{proxy.port}"
    async with anthropic.AsyncAnthropic(api_key="key", base_url=url, default_headers=headers, max_retries=0) as client:
        yield client


async def test_openai_chat(proxy: Proxied, open_ai: openai.AsyncOpenAI) -> None:
    answer = await open_ai.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])

    assert answer.choices[0].message.content == "Hello!"
    assert answer.usage is not None and answer.usage.total_tokens == 29
    await proxy.settles_at(1000 - 29)


async def test_openai_chat_streaming_with_usage(proxy: Proxied, open_ai: openai.AsyncOpenAI) -> None:
    stream = await open_ai.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [one async for one in stream]

    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "Hello!"
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 29
    await proxy.settles_at(1000 - 29)


async def test_openai_chat_streaming_without_usage(
    proxy: Proxied, open_ai: openai.AsyncOpenAI, request: pytest.FixtureRequest
) -> None:
    stream = await open_ai.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
    chunks = [one async for one in stream]

    assert all(one.choices for one in chunks)
    injecting = "injecting" in request.node.name
    await proxy.settles_at(1000 - 29 if injecting else 1000)


@pytest.mark.parametrize("stream", [False, True])
async def test_openai_responses(proxy: Proxied, open_ai: openai.AsyncOpenAI, stream: bool) -> None:
    if stream:
        events = [event async for event in await open_ai.responses.create(model="m", input="hi", stream=True)]
        assert [event.type for event in events][-1] == "response.completed"
    else:
        answer = await open_ai.responses.create(model="m", input="hi")
        assert answer.output_text == "Hello!"
    await proxy.settles_at(1000 - 123)


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropic_messages(proxy: Proxied, claude: anthropic.AsyncAnthropic, stream: bool) -> None:
    if stream:
        async with claude.messages.stream(
            model="m", max_tokens=50, messages=[{"role": "user", "content": "hi"}]
        ) as streamed:
            assert [text async for text in streamed.text_stream] == ["Hello!"]
            usage = (await streamed.get_final_message()).usage
    else:
        answer = await claude.messages.create(model="m", max_tokens=50, messages=[{"role": "user", "content": "hi"}])
        usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens) == (25, 15)
    await proxy.settles_at(1000 - 25 - 4 - 3 - 15)


async def test_a_refusal_is_an_error_of_the_client(proxy: Proxied, open_ai: openai.AsyncOpenAI) -> None:
    poor = open_ai.with_options(default_headers={"X-User-Id": "stranger"})
    import openai  # noqa: PLC0415 - as above

    with pytest.raises(openai.APIStatusError) as refused:
        await poor.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])

    assert refused.value.status_code == 402
    assert proxy.upstream.asked == []
