"""The official clients through the proxy, charged by a rate card: each kind of token at its own rate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from meter import Meter
from tests.proxy.proxied import proxied
from tests.proxy.test_clients import CLIENTS
from tests.proxy.test_priced import RATES, cost, put
from tests.proxy.test_sdks import provider

pytestmark = [
    pytest.mark.slow,
    # Clients leave sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

HI = [{"role": "user", "content": "hi"}]
WHO = {"X-User-Id": "user-1"}
CHAT = {"input": 19, "output": 10}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("name", CLIENTS)
async def test_a_client_of_another_provider_pays_by_the_card(shop: Meter, name: str, streams: bool) -> None:
    script, ask, _ = CLIENTS[name]
    asked: Callable[..., int] = ask
    await put(shop, {"m": RATES})
    told = {**CHAT, "reasoning": 5} if name == "gemini" else CHAT
    async with proxied(script, shop) as proxy:
        await asyncio.to_thread(asked, f"http://127.0.0.1:{proxy.port}", streams=streams)
        await proxy.settles_at(1000 - cost(told))


async def ask_chat(url: str, streams: bool) -> None:
    sdk = pytest.importorskip("openai", reason="pip install --group clients")
    async with sdk.AsyncOpenAI(api_key="key", base_url=f"{url}/v1", default_headers=WHO) as client:
        answer = await client.chat.completions.create(model="m", messages=HI, stream=streams)
        if streams:
            assert all([one.choices async for one in answer])


async def ask_responses(url: str, streams: bool) -> None:
    sdk = pytest.importorskip("openai", reason="pip install --group clients")
    async with sdk.AsyncOpenAI(api_key="key", base_url=f"{url}/v1", default_headers=WHO) as client:
        answer = await client.responses.create(model="openai/m", input="hi", stream=streams)
        if streams:
            assert [event async for event in answer]


async def ask_claude(url: str, streams: bool) -> None:
    sdk = pytest.importorskip("anthropic", reason="pip install --group clients")
    async with sdk.AsyncAnthropic(api_key="key", base_url=url, default_headers=WHO) as client:
        answer = await client.messages.create(model="m-20250101", max_tokens=50, messages=HI, stream=streams)
        if streams:
            assert [event async for event in answer]


ASK: dict[str, tuple[Callable[[str, bool], Awaitable[None]], dict[str, int]]] = {
    "chat": (ask_chat, CHAT),
    "responses": (ask_responses, {"input": 36, "output": 87}),
    "messages": (ask_claude, {"input": 25, "cache_read": 4, "cache_write": 3, "output": 15}),
}


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("name", ASK)
async def test_the_clients_of_openai_and_anthropic_pay_by_the_card(shop: Meter, name: str, streams: bool) -> None:
    """A stream of chat completions that asks for no usage, too."""
    ask, told = ASK[name]
    await put(shop, {"m": RATES})
    async with proxied(provider, shop) as proxy:
        await ask(f"http://127.0.0.1:{proxy.port}", streams)
        await proxy.settles_at(1000 - cost(told))


async def test_an_unknown_model_is_an_error_that_a_client_shows(shop: Meter) -> None:
    await put(shop, {"other": RATES})
    async with proxied(provider, shop) as proxy:
        with pytest.raises(Exception, match=r"(?i)rate card") as refusal:
            await ask_chat(f"http://127.0.0.1:{proxy.port}", False)
    error: Any = refusal.value
    assert error.status_code == 422
