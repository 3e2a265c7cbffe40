"""What an answer through the proxy costs by a rate card: each recorded answer exactly, without one as before."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from meter import Meter, Refusal
from meter.charging.priced import ChargeBy
from meter.contract.answers import TransactionPage
from tests.proxy.proxied import Proxied, proxied
from tests.proxy.serving import connected, fetch, request
from tests.proxy.upstream import Asked, Reply, Script

ANSWERS = json.loads((Path(__file__).parents[1] / "usage" / "answers" / "recorded.json").read_text())
RATES = {
    "input": 2,
    "cache_read": "0.2",
    "cache_write": "2.5",
    "output": 8,
    "reasoning": 9,
    "audio_input": 40,
    "audio_output": 80,
    "search_units": 2000,
    "pages": 1000,
}
CHAT = {"input": 19, "output": 10}
RESPONSE = {"input": 36, "output": 77, "reasoning": 10}
CACHED = {"input": 25, "cache_write": 100, "cache_read": 1000, "output": 15}
TOLD: dict[str, dict[str, int]] = {
    "chat_json": {"input": 14, "cache_read": 5, "output": 6, "reasoning": 4},
    **{key: {} for key in ("chat_error_only", "html200", "anth_count")},
    **{key: {} for key in ("oll_failure", "bed_failure", "gem_failure", "anth_failure", "resp_failure")},
    **dict.fromkeys(("resp_json", "resp_stream", "resp_incomplete"), RESPONSE),
    "emb_json": {"input": 8},
    "stt_tokens": {"input": 10, "audio_input": 4, "output": 101},
    **{key: {"input": 14, "output": 101} for key in ("stt_stream", "tts_sse")},
    **dict.fromkeys(("anth_json", "anth_stream", "anth_delta_full"), CACHED),
    **{key: {"input": 25, "output": 15} for key in ("anth_delta_in0", "anth_delta_null")},
    "anth_error": {"input": 25, "output": 1},
    "anth_iter": {"input": 203000, "output": 4500},
    **{key: {"input": 10, "output": 20, "reasoning": 70} for key in ("gem_json", "gem_sse")},
    "bed_json": {"input": 30, "output": 70},
    **{key: {"input": 25, "output": 15} for key in ("bed_invoke_json", "bed_titan_json")},
    "coh_json": {"input": 5, "output": 18},
    **{key: {"input": 26, "output": 282} for key in ("oll_json", "oll_stream")},
    "gem_interaction": {"input": 6, "cache_read": 4, "output": 20, "reasoning": 70},
    "gem_interaction_stream": {"input": 10, "output": 20, "reasoning": 70},
    "gem_batch": {"input": 39, "output": 20},
    "vertex_predict": {"input": 13},
    "bed_nova_json": {"input": 10, "cache_read": 5, "cache_write": 4, "output": 20},
    "mistral_ocr": {"pages": 29},
    "llamacpp_timings": {"input": 15, "cache_read": 4, "output": 10},
}
"""What each answer tells, by dimension; the others are CHAT."""


async def put(shop: Meter, models: dict[str, Any], card: str = "default", **members: Any) -> None:
    """A version of a card, which prices at once."""
    answer = await shop.put_rate_card(card, models, **members)
    assert answer, answer


def cost(quantities: dict[str, int], rates: dict[str, Any] = RATES) -> Decimal:
    """By the card, without the meter."""
    units = sum((quantity * Decimal(rates[name]) for name, quantity in quantities.items()), Decimal(0))
    return units.to_integral_value(ROUND_CEILING) / 10**6


def answering(body: object, *headers: str, status: int = 200) -> Script:
    """An upstream that says the same to everybody."""

    async def script(_: Asked, reply: Reply) -> None:
        await reply.json(body if isinstance(body, bytes) else orjson.dumps(body), *headers, status=status)

    return script


def chat(model: str | None = "gpt-4o", **usage: Any) -> dict[str, object]:
    """A chat completion, by default of 19 and 10 tokens."""
    told = usage or {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}
    return {"id": "c", "choices": [], "usage": told, **({"model": model} if model else {})}


async def post(
    proxy: Proxied, asked: object, path: str = "/v1/chat/completions", *headers: str, user: str = "user-1"
) -> int:
    """The status of a request."""
    body = asked if isinstance(asked, bytes) else orjson.dumps(asked)
    return (await fetch(proxy.port, request("POST", path, *headers, body=body, user=user))).status


@pytest.mark.parametrize("name", ANSWERS)
async def test_each_recorded_answer_costs_what_its_dimensions_cost(shop: Meter, name: str) -> None:
    """By the model as answered, and as asked where the answer names none."""

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.raw(ANSWERS[name]["answer"].encode("latin-1"))

    await put(shop, {"m": RATES, "asked": RATES, "l": RATES, "gemini": RATES})
    path = (
        "/v1/messages"
        if name.startswith("anth")
        else "/v1/responses"
        if name.startswith("resp")
        else "/v1/chat/completions"
    )
    async with proxied(script, shop) as proxy:
        assert await post(proxy, {"model": "asked", "max_tokens": 100}, path) == 200
        await proxy.settles_at(1000 - cost(TOLD.get(name, CHAT)))


NAMES = [
    ("gpt-4o", "gpt-4o-2024-08-06", "/v1/chat/completions", "gpt-4o"),
    ("openai/gpt-4o", "gpt-4o-2024-08-06", "/v1/chat/completions", "gpt-4o"),
    ("gpt-4o", "mini", "/v1/chat/completions", "mini"),
    ("gpt-4o-2024-11-20", None, "/v1/chat/completions", "gpt-4o"),
    ("models/gemini-2.5-pro", "gemini-2.5-pro-002", "/v1/chat/completions", "gemini-2.5-pro"),
    (None, "gemini-2.5-pro", "/v1beta/models/gemini-2.5-pro:generateContent", "gemini-2.5-pro"),
    (None, None, "/v1beta/models/gemini-2.5-pro:generateContent", "gemini-2.5-pro"),
    ("ignored", "gpt-4o-2024-08-06", "/openai/deployments/prod-chat/chat/completions?api-version=1", "gpt-4o"),
    (None, None, "/openai/deployments/prod-chat/chat/completions", "prod-chat"),
    (None, None, "/model/us.anthropic.claude-3-5-sonnet-20240620-v1:0/converse", "claude-3-5-sonnet"),
    (None, None, "/model/anthropic.claude-3-5-sonnet-20240620-v1%3A0/invoke", "claude-3-5-sonnet"),
    (None, None,
    "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Feu.anthropic.claude-3-5-sonnet-v2%3A0/converse",
    "claude-3-5-sonnet"), ("claude-3-5-sonnet@20240620", "claude-3-5-sonnet-latest", "/v1/messages",
    "claude-3-5-sonnet"), ("llama3:latest", "llama3:latest", "/api/chat", "llama3"), (None, "gpt-4o",
    "/v1/chat/completions", "gpt-4o"), ]  # fmt: skip


@pytest.mark.parametrize(("asked", "told", "path", "priced_as"), NAMES)
async def test_a_model_is_found_by_each_of_its_names(
    shop: Meter, asked: str | None, told: str | None, path: str, priced_as: str
) -> None:
    """Prefixes, dates, deployments, Bedrock's ids in the path; one that names no model is priced by its answer."""
    names = ("gpt-4o", "mini", "gemini-2.5-pro", "prod-chat", "claude-3-5-sonnet", "llama3")
    models = {name: {"input": 10 * number, "output": number} for number, name in enumerate(names, 1)}
    await put(shop, models)
    async with proxied(answering(chat(told)), shop) as proxy:
        assert await post(proxy, {"max_tokens": 9, **({"model": asked} if asked else {})}, path) == 200
        await proxy.settles_at(1000 - cost(CHAT, models[priced_as]))
    [charge] = (await charges(shop)).items
    assert charge.price is not None
    assert (charge.price.model, charge.price.breakdown["input"].quantity) == (priced_as, 19)


async def charges(shop: Meter, user: str = "user-1") -> TransactionPage:
    """The commits of a user."""
    page = await shop.history(user, kind="commit")
    assert isinstance(page, TransactionPage)
    return page


async def test_the_line_for_every_other_model_comes_after_what_was_asked(shop: Meter) -> None:
    cheap, other = {"input": 1, "output": 1}, {"input": 50, "output": 50}
    await put(shop, {"gpt-4o": cheap, "*": other})
    async with proxied(answering(chat("gpt-4o-2099-01-01")), shop) as proxy:
        assert await post(proxy, {"model": "gpt-4o", "max_tokens": 9}) == 200
        await proxy.settles_at(1000 - cost(CHAT, cheap))
        assert await post(proxy, {"model": "nobody-knows", "max_tokens": 9}) == 200
        await proxy.settles_at(1000 - 2 * cost(CHAT, cheap))
    async with proxied(answering(chat("strange")), shop) as proxy:
        assert await post(proxy, {"model": "strange-too", "max_tokens": 9}) == 200
        await proxy.settles_at(1000 - 2 * cost(CHAT, cheap) - cost(CHAT, other))


async def test_an_unknown_model_is_refused_before_anybody_is_asked(shop: Meter) -> None:
    await put(shop, {"gpt-4o": RATES})
    async with proxied(answering(chat()), shop) as proxy:
        answer = await fetch(proxy.port, request("POST", "/v1/chat/completions", body=b'{"model":"nope"}'))
        assert (answer.status, proxy.upstream.asked) == (422, [])
        assert json.loads(answer.body)["error"]["code"] == "unknown_model"
        await proxy.settles_at(1000)


async def test_who_has_no_card_pays_tokens_and_who_has_one_of_its_own_the_price(shop: Meter) -> None:
    """Nothing else is set up; and the options that decide it."""
    await put(shop, {"gpt-4o": RATES}, card="gold")
    await shop.add("org/a", 1000)
    assert await shop.configure("org", rate_card="gold", price_multiplier=2)
    asked = {"model": "gpt-4o", "max_tokens": 9}
    async with proxied(answering(chat()), shop) as proxy:
        assert [await post(proxy, asked), await post(proxy, asked, user="org/a")] == [200, 200]
        await proxy.settles_at(971)
        await proxy.settles_at(1000 - 2 * cost(CHAT), user="org/a")
    async with proxied(answering(chat()), shop, charge_by=ChargeBy.CARD) as proxy:
        assert [await post(proxy, asked), await post(proxy, asked, user="org/a")] == [422, 200]
        await proxy.settles_at(1000 - 4 * cost(CHAT), user="org/a")
    async with proxied(answering(chat()), shop, charge_by=ChargeBy.AMOUNT) as proxy:
        assert await post(proxy, asked, user="org/a") == 200
        await proxy.settles_at(971 - 4 * cost(CHAT), user="org/a")
    await put(shop, {"gpt-4o": RATES})
    async with proxied(answering(chat()), shop) as proxy:
        assert await post(proxy, asked) == 200
        await proxy.settles_at(971 - cost(CHAT))


async def test_a_card_that_is_named_and_does_not_price_yet_refuses(shop: Meter) -> None:
    """Its user has a card, so that tokens are not taken for credits."""
    await put(shop, {"gpt-4o": RATES}, card="gold", effective_at=datetime(2100, 1, 1, tzinfo=UTC))
    assert await shop.configure("user-1", rate_card="gold")
    async with proxied(answering(chat()), shop) as proxy:
        assert await post(proxy, {"model": "gpt-4o"}) == 422
        await proxy.settles_at(1000)


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        ({"max_tokens": 500}, 500 * 8),
        ({"max_tokens": 500, "n": 3}, 1500 * 8),
        ({}, 4096 * 8),
        ({"n": 3}, 3 * 4096 * 8),
    ],
)
async def test_what_is_held_comes_from_the_request_and_the_card(shop: Meter, asked: dict[str, int], held: int) -> None:
    """The prompt by its bytes, max_tokens times n, else what the line says, times n."""
    await put(shop, {"gpt-4o": {**RATES, "max_output": 4096}})
    seen = []

    async def script(_: Asked, reply: Reply) -> None:
        seen.append((await shop.balance("user-1")).reserved)  # type: ignore[union-attr]
        await reply.json(orjson.dumps(chat()))

    async with proxied(script, shop) as proxy:
        body = orjson.dumps({"model": "gpt-4o", **asked})
        assert await post(proxy, body) == 200
        await proxy.settles_at(1000 - cost(CHAT))
    assert seen == [Decimal(-(-len(body) // 4) * 2 + held) / 10**6]


async def test_a_line_without_a_bound_is_held_for_the_estimate(shop: Meter) -> None:
    await put(shop, {"gpt-4o": {"output": 10_000}})  # and input has no price at all
    async with proxied(answering(chat()), shop, default_estimated_tokens=1000) as proxy:
        answer = await fetch(proxy.port, request("POST", "/v1/chat/completions", body=b'{"model":"gpt-4o"}'))
        assert (answer.status, answer.one("x-credits-reserved")) == (200, "10")


async def test_nobody_is_served_beyond_the_holds_whatever_the_header_says(shop: Meter) -> None:
    """K17: 0.01 credits, 20 requests at once."""
    await put(shop, {"gpt-4o": {"input": 100, "output": 100}})
    await shop.add("poor", "0.01")
    all_there = asyncio.Event()

    async def script(_: Asked, reply: Reply) -> None:
        await all_there.wait()
        await reply.json(orjson.dumps(chat()))

    async with proxied(script, shop) as proxy:
        asked = {"model": "gpt-4o", "max_tokens": 10, "messages": "x" * 76}
        calls = [
            asyncio.ensure_future(post(proxy, asked, "/v1/chat/completions", "X-Estimated-Tokens: 0", user="poor"))
            for _ in range(20)
        ]
        while sum(call.done() for call in calls) + len(proxy.upstream.asked) < 20:
            await asyncio.sleep(0.005)
        all_there.set()
        served = (await asyncio.gather(*calls)).count(200)
        assert served == 2
        await proxy.settles_at(Decimal("0.01") - 2 * cost(CHAT, {"input": 100, "output": 100}), user="poor")


async def test_a_card_that_changes_meanwhile_changes_no_price_of_what_is_held(shop: Meter) -> None:
    await put(shop, {"gpt-4o": RATES})

    async def script(_: Asked, reply: Reply) -> None:
        await put(shop, {"gpt-4o": {"input": 999, "output": 999}, "other": RATES})
        await reply.json(orjson.dumps(chat()))

    async with proxied(script, shop) as proxy:
        assert await post(proxy, {"model": "gpt-4o", "max_tokens": 9}) == 200
        await proxy.settles_at(1000 - cost(CHAT))
        assert await post(proxy, {"max_tokens": 9}) == 200  # no model: the version is frozen all the same
        await proxy.settles_at(1000 - cost(CHAT) - cost(CHAT, {"input": 999, "output": 999}))


@pytest.mark.parametrize(
    ("answer", "options", "charged"),
    [
        (b"{}", {}, "0"),
        (b"{}", {"missing_usage_minimum": Decimal("0.25")}, "0.25"),
        (b"{}", {"on_missing_usage": "estimate"}, "0.000138"),
        (b"{}", {"on_missing_usage": "reserved"}, "0.000138"),
        (b"{}", {"on_missing_usage": "estimate", "missing_usage_minimum": Decimal("0.5")}, "0.5"),
        (b'{"error":{"message":"overloaded"}}', {"missing_usage_minimum": Decimal("0.25")}, "0"),
        (b'{"usage":{"prompt_tokens":0,"completion_tokens":0}}', {}, "0"),
        (b'{"usage":{"seconds":9}}', {}, "0.000138"),
        (b'{"model":"gpt-4o","usage":{"prompt_tokens":"19","completion_tokens":10.0}}', {}, "0.000118"),
        (b'{"usage":{"total_tokens":29}}', {}, "0.000058"),
        (b'{"usage":{"prompt_tokens":19,"completion_tokens":3,"total_tokens":29}}', {}, "0.000118"),
        (b'{"model":"\\ud83d\\u0000","usage":{"prompt_tokens":19,"completion_tokens":10}}', {}, "0.000118"),
    ],
)
async def test_what_tells_nothing_to_be_priced_falls_under_the_owners_policy(
    shop: Meter, answer: bytes, options: dict[str, Any], charged: str
) -> None:
    """Usage that the card has no price for costs all that is held; a total alone counts as input, what it has beyond
    the parts as output; strings count.
    """
    await put(shop, {"gpt-4o": RATES})
    async with proxied(answering(answer), shop, **options) as proxy:
        assert await post(proxy, {"model": "gpt-4o", "max_tokens": 15}) == 200
        await proxy.settles_at(1000 - Decimal(charged))


async def test_a_header_of_the_upstreams_tells_credits(shop: Meter) -> None:
    await put(shop, {"gpt-4o": RATES})
    async with proxied(answering(chat(), "X-Credits-Actual: 0.5"), shop) as proxy:
        assert await post(proxy, {"model": "gpt-4o", "max_tokens": 9}) == 200
        await proxy.settles_at("999.5")
        assert await post(proxy, {"model": "gpt-4o"}, "/my/own/api", "Content-Type: application/json") == 200
        await proxy.settles_at(999)


async def test_a_stream_tells_usage_in_several_frames_and_one_that_breaks_what_it_told(shop: Meter) -> None:
    await put(shop, {"claude": RATES})
    first = (
        '{"type":"message_start","message":{"model":"claude-20250101","usage":{"input_tokens":25,"output_tokens":1}}}'
    )

    async def script(asked: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.event(first)
        if b"break" in asked.body:
            reply.die()
            return
        await reply.event('{"type":"message_delta","usage":{"output_tokens":15}}')
        await reply.chunk(b"")

    async with proxied(script, shop) as proxy:
        body = orjson.dumps({"model": "claude", "max_tokens": 100, "stream": True})
        assert await post(proxy, body, "/v1/messages") == 200
        whole = cost({"input": 25, "output": 15})
        await proxy.settles_at(1000 - whole)
        async with connected(proxy.port) as client:
            await client.send(request("POST", "/v1/messages", body=body.replace(b'"stream"', b'"break":1,"stream"')))
            assert not (await client.answer()).whole
        await proxy.settles_at(1000 - whole - cost({"input": 25, "output": 1}))


async def test_images_are_counted_by_the_request_where_no_answer_does(shop: Meter) -> None:
    await put(shop, {"dall-e-3": {"images": 40_000}, "rerank": {"search_units": 2000}, "stt": {"seconds": 100}})
    async with proxied(answering({"created": 1, "data": [{"url": "x"}, {"url": "y"}]}), shop) as proxy:
        assert await post(proxy, {"model": "dall-e-3", "n": 2, "prompt": "a"}, "/v1/images/generations") == 200
        await proxy.settles_at(1000 - Decimal("0.08"))
    ranked = {"results": [], "meta": {"billed_units": {"search_units": 3}}}
    async with proxied(answering(ranked), shop) as proxy:
        assert await post(proxy, {"model": "rerank", "query": "a"}, "/v2/rerank") == 200
        await proxy.settles_at(1000 - Decimal("0.086"))
    named, told = b'Content-Disposition: form-data; name="model"', {"type": "duration", "seconds": 8.5}
    form = b"\r\n".join(
        [b"--b", named, b"", b"stt", b"--b", named.replace(b"model", b"file"), b"", b"RIFF", b"--b--", b""]
    )
    multipart = "Content-Type: multipart/form-data; boundary=b"
    async with proxied(answering({"text": "hi", "usage": told}), shop) as proxy:
        assert await post(proxy, form, "/v1/audio/transcriptions", multipart) == 200
        await proxy.settles_at(1000 - Decimal("0.0869"))


async def test_a_large_request_of_who_has_nothing_is_not_read(shop: Meter) -> None:
    await put(shop, {"gpt-4o": RATES})
    async with proxied(answering(chat()), shop) as proxy:
        head = request("POST", "/v1/chat/completions", "Content-Length: 9000000", user="poor")
        async with connected(proxy.port) as client:
            await client.send(head + b"x" * 2_000_000)
            assert (await client.head())[0] == 402
        body = orjson.dumps({"messages": "x" * 1_500_000, "model": "gpt-4o", "max_tokens": 5})
        assert await post(proxy, body) == 200
        await proxy.settles_at(1000 - cost(CHAT))


BATCH = {"id": "batch_1", "object": "batch", "status": "validating"}


async def test_background_work_is_priced_by_each_of_its_models(shop: Meter) -> None:
    """Once, also where its hold has ended."""
    dear = {"input": 30, "output": 60}
    await put(shop, {"gpt-4o": RATES, "mini": dear})
    lines = b"".join(
        orjson.dumps({"custom_id": "a", "response": {"body": chat(model)}}) + b"\n"
        for model in ("gpt-4o-2024-08-06", "mini", "mini")
    )
    done = {**BATCH, "status": "completed", "output_file_id": "file-1"}

    async def script(asked: Asked, reply: Reply) -> None:
        if asked.method == "POST":
            await reply.json(orjson.dumps(BATCH))
        else:
            await reply.json(lines if asked.target.endswith("/content") else orjson.dumps(done))

    async with proxied(script, shop, default_estimated_tokens=1) as proxy:
        assert await post(proxy, {"input_file_id": "f"}, "/v1/batches") == 200
        for path in ("/v1/batches/batch_1", "/v1/files/file-1/content", "/v1/files/file-1/content"):
            await fetch(proxy.port, request("GET", path))
        await proxy.settles_at(1000 - cost(CHAT) - 2 * cost(CHAT, dear))
        assert not isinstance(await shop.balance("user-1"), Refusal)
