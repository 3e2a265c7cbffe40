"""Usage from chat completions that stream, whose clients did not ask for it."""

from __future__ import annotations

import gzip
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter import Meter
from meter.charging.asking import Unreadable
from meter.proxy.asking import READ_FIRST_BYTES
from meter.proxy.injection import EVENT_BYTES_MAX, UsageChunkFilter, may_inject, with_usage
from tests.proxy.proxied import proxied
from tests.proxy.serving import fetch, request
from tests.proxy.upstream import Asked, Reply

TEXT = b'data: {"choices":[{"delta":{"content":"hi"}}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}\n\n'
DONE = b"data: [DONE]\n\n"
PATH = "/v1/chat/completions"
JSON = "Content-Type: application/json"


async def chat(asked: Asked, reply: Reply) -> None:
    """As OpenAI does: the usage chunk only for those who ask."""
    options = orjson.loads(asked.body).get("stream_options") or {}
    await reply.stream()
    await reply.chunk(TEXT)
    if options.get("include_usage"):
        await reply.chunk(USAGE)
    await reply.chunk(DONE)
    await reply.chunk(b"")


async def test_the_usage_is_asked_for_and_does_not_reach_the_client(bank: Meter) -> None:
    async with proxied(chat, bank, inject_include_usage=True) as proxy:
        sent = b' {"stream": true, "n": 12345678901234567890, "x": 1.50}'
        answer = await fetch(proxy.port, request("POST", PATH, JSON, "Accept-Encoding: gzip", body=sent))
        asked = await proxy.upstream.was_asked()
        await proxy.settles_at(985)

    assert answer.body == TEXT + DONE
    assert (
        asked.body == b'{"stream_options":{"include_usage":true},"stream": true, "n": 12345678901234567890, "x": 1.50}'
    )
    assert asked.all("content-length") == [str(len(asked.body))]
    assert asked.all("accept-encoding") == ["identity"]


async def test_a_stream_of_a_known_length_gets_shorter(bank: Meter) -> None:
    async def script(_: Asked, reply: Reply) -> None:
        stream = TEXT + USAGE + DONE
        await reply.head(200, "Content-Type: text/event-stream; charset=utf-8", f"Content-Length: {len(stream)}")
        await reply.raw(stream)

    async with proxied(script, bank, inject_include_usage=True) as proxy:
        answer = await fetch(proxy.port, request("POST", PATH, JSON, body=b'{"stream":true}'))
        await proxy.settles_at(985)

    assert (answer.body, answer.whole) == (TEXT + DONE, True)


async def test_who_asked_gets_the_usage(bank: Meter) -> None:
    async with proxied(chat, bank, inject_include_usage=True) as proxy:
        sent = b'{"stream":true,"stream_options":{"include_usage":true}}'
        answer = await fetch(proxy.port, request("POST", PATH, JSON, body=sent))
        asked = await proxy.upstream.was_asked()
        await proxy.settles_at(985)

    assert answer.body == TEXT + USAGE + DONE
    assert asked.body == sent


async def test_it_is_on_by_default_and_can_be_off(bank: Meter) -> None:
    """C15: seven clients stream without `include_usage`."""
    async with proxied(chat, bank) as proxy:
        await fetch(proxy.port, request("POST", PATH, JSON, body=b'{"stream":true}'))
        await proxy.settles_at(985)
    async with proxied(chat, bank, inject_include_usage=False) as proxy:
        answer = await fetch(proxy.port, request("POST", PATH, JSON, body=b'{"stream":true}'))
        await proxy.settles_at(985)

    assert answer.body == TEXT + DONE


@pytest.mark.parametrize("framed", [True, False])
async def test_a_large_request_is_rewritten_too(bank: Meter, framed: bool) -> None:
    sent = b'{"stream":true,"max_tokens":20,"x":"' + b"x" * READ_FIRST_BYTES + b'"}'
    async with proxied(chat, bank, bytes_per_token=10_000) as proxy:
        if framed:
            whole = request("POST", PATH, JSON, body=sent)
        else:
            chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(sent), sent)
            whole = request("POST", PATH, JSON, "Transfer-Encoding: chunked", body=chunked, length=False)
        answer = await fetch(proxy.port, whole)
        asked = await proxy.upstream.was_asked()
        await proxy.settles_at(985)

    assert answer.body == TEXT + DONE
    assert asked.body == b'{"stream_options":{"include_usage":true},' + sent[1:]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ([], b'{"stream":true', 400),
        ([], b"{'stream':true}", 400),
        ([], b'{"stream":true,"x":"' + b"x" * 2_000_000 + b'"}', 413),
        (["Content-Encoding: br"], b"whatever", 415),
        (["Content-Encoding: gzip"], b'{"stream":true}', 415),
        (["Content-Encoding: gzip"], gzip.compress(b'{"stream":true}')[:-1], 415),
        (["Content-Encoding: gzip"], gzip.compress(b"x" * 3_000_000), 415),
    ],
)
async def test_what_cannot_be_rewritten_for_certain_is_refused(
    bank: Meter, headers: list[str], body: bytes, status: int
) -> None:
    """K5: never free."""
    async with proxied(chat, bank, request_bytes_max=1_500_000, bytes_per_token=10_000) as proxy:
        assert (await fetch(proxy.port, request("POST", PATH, JSON, *headers, body=body))).status == status
        assert proxy.upstream.asked == []
        await proxy.settles_at(1000)


S = b'{"model":"m","stream":true}'


def lax(body: bytes) -> dict[str, object]:
    """As an upstream reads that takes everything."""
    document = json.JSONDecoder(strict=False).raw_decode(body.decode("utf-8-sig", "replace"))[0]
    return {name.lower(): value for name, value in document.items()}


async def lax_chat(asked: Asked, reply: Reply) -> None:
    read = lax(asked.body)
    options = read.get("stream_options")
    assert asked.all("content-encoding") in ([], ["identity"])
    await reply.stream()
    await reply.chunk(TEXT)
    if isinstance(options, dict) and options.get("include_usage"):
        await reply.chunk(USAGE)
    await reply.chunk(b"")


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        (PATH + "/", [JSON], S),
        (PATH.upper(), [JSON], S),
        (PATH + ";a=b", [JSON], S),
        ("/v1//chat/%63ompletions", [JSON], S),
        (PATH + "?x=/y", [JSON], S),
        (PATH, [], S),
        (PATH, ["Content-Type: text/plain"], S),
        (PATH, [JSON, "Content-Encoding: identity"], S),
        (PATH, [JSON, "Content-Encoding: gzip"], gzip.compress(S)),
        (PATH, [JSON], b"\xef\xbb\xbf" + S),
        (PATH, [JSON], S[:-1] + b',"x":NaN}'),
        (PATH, [JSON], S[:-1] + b',"x":"\\ud83d"}'),
        (PATH, [JSON], S[:-1] + b',"x":"\xff\t"}'),
        (PATH, [JSON], S + b" trailing"),
        (PATH, [JSON], S.replace(b"stream", b"Stream")),
        (PATH, [JSON], S.replace(b"stream", b"\\u0073tream")),
        (PATH, [JSON], S.replace(b"true", b'"true"')),
        (PATH, [JSON], S.replace(b"true", b"1")),
        (PATH, [JSON], S[:-1] + b',"stream":false}'),
        (PATH, [JSON], S[:-1] + b',"stream_options":{"include_usage":true},"stream_options":{}}'),
        (PATH, [JSON], S[:-1] + b',"stream_options":{"include_usage":true},"Stream_Options":{}}'),
        (PATH, [JSON], S[:-1] + b',"stream_options":{"include_usage":true,"Include_Usage":false}}'),
        (PATH, [JSON], S[:-1] + b',"stream_options":"x"}'),
        (PATH, [JSON], S.decode().encode("utf-16")),
    ],
)  # fmt: skip
async def test_the_usage_is_asked_for_however_the_request_is_spelt(
    bank: Meter, path: str, headers: list[str], body: bytes
) -> None:
    """K5: path, content type, codings and JSON as laxly read as any upstream does."""
    async with proxied(lax_chat, bank) as proxy:
        answer = await fetch(proxy.port, request("POST", path, *headers, body=body))
        await proxy.settles_at(985)

    assert answer.body == TEXT


async def test_what_else_the_usage_chunk_carries_reaches_the_client(bank: Meter) -> None:
    """K5: citations, say."""
    told = {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}, "citations": ["https://a.example"]}

    async def script(_: Asked, reply: Reply) -> None:
        await reply.stream()
        await reply.chunk(b"data: " + orjson.dumps(told) + b"\n\n")
        await reply.chunk(b"")

    async with proxied(script, bank) as proxy:
        answer = await fetch(proxy.port, request("POST", PATH, JSON, body=S))
        await proxy.settles_at(985)

    assert orjson.loads(answer.body.removeprefix(b"data: ")) == {**told, "usage": None}


async def test_a_request_in_many_pieces_is_read_whole(bank: Meter) -> None:
    sent = b'{"stream":true,"x":"' + b"x" * 300_000 + b'"}'
    async with proxied(chat, bank, bytes_per_token=1000) as proxy:
        await fetch(proxy.port, request("POST", PATH, JSON, body=sent))
        await proxy.settles_at(985)


async def test_a_response_that_is_no_stream_is_not_filtered(bank: Meter) -> None:
    body = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'

    async def script(_: Asked, reply: Reply) -> None:
        await reply.json(body)

    async with proxied(script, bank, inject_include_usage=True) as proxy:
        answer = await fetch(proxy.port, request("POST", PATH, JSON, body=b'{"stream":true}'))
        await proxy.settles_at(997)

    assert answer.body == body


async def test_a_stream_that_is_encoded_all_the_same_is_not_filtered(bank: Meter) -> None:
    packed = gzip.compress(TEXT + USAGE + DONE)

    async def script(_: Asked, reply: Reply) -> None:
        await reply.stream("Content-Encoding: gzip")
        await reply.chunk(packed)
        await reply.chunk(b"")

    async with proxied(script, bank, inject_include_usage=True) as proxy:
        answer = await fetch(proxy.port, request("POST", PATH, JSON, body=b'{"stream":true}'))
        await proxy.settles_at(985)

    assert answer.body == packed


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (b'{"stream":true}', {"stream": True, "stream_options": {"include_usage": True}}),
        (b'{"stream":true,"stream_options":null}', {"stream": True, "stream_options": {"include_usage": True}}),
        (
            b'{"stream":true,"stream_options":{"include_usage":false,"x":"\\u00e9"}}',
            {"stream": True, "stream_options": {"include_usage": True, "x": "\u00e9"}},
        ),
        (b'{"stream":false}', None),
        (b'{"stream":0}', None),
        (b"{}", None),
        (b"[]", None),
        (b"", None),
        (
            b'{"stream":true,"x":"\\u00e9","n":1.5}',
            {"stream": True, "stream_options": {"include_usage": True}, "x": "\u00e9", "n": 1.5},
        ),
        (b'{"stream":true,"stream_options":{"include_usage":true}}', None),
    ],
)
def test_which_requests_are_changed(body: bytes, changed: object) -> None:
    result = with_usage(body)

    assert (None if result is None else json.loads(result)) == changed


def test_what_is_no_json_is_told() -> None:
    for body in (b'{"stream":true', b"{'stream':true}", b"[" * 100_000, b'{"n":' + b"1" * 5000 + b"}"):
        with pytest.raises(Unreadable):
            with_usage(body)


@pytest.mark.parametrize(
    ("method", "path", "may"),
    [
        ("POST", "/v1/chat/completions", True),
        ("POST", "/openai/completions/", True),
        ("GET", "/v1/chat/completions", False),
        ("POST", "/v1/messages", False),
        ("POST", "/v1/responses", False),
    ],
)
def test_which_requests_may_be_changed(method: str, path: str, may: bool) -> None:
    assert may_inject(method, path) is may


EVENTS = [
    TEXT,
    TEXT.replace(b"\n", b"\r\n"),
    DONE,
    b": heartbeat\n\n",
    b'data: {"choices":[],"usage":null,"prompt_filter_results":[]}\n\n',
    b'event: x\nid: 1\ndata: {"choices": [1],\ndata: "usage":{}}\n\n',
    b'data: "usage" is no JSON\n\n',
]


@given(
    st.lists(st.sampled_from([*EVENTS, USAGE, USAGE.replace(b"\n", b"\r\n"), USAGE.replace(b"data: ", b"data:")])),
    st.integers(1, 40),
)
def test_the_filter_passes_everything_but_usage_chunks_however_it_is_cut(events: list[bytes], size: int) -> None:
    chunk_filter, stream = UsageChunkFilter(), b"".join(events)
    passed = b"".join(chunk_filter.feed(stream[at : at + size]) for at in range(0, len(stream), size))

    assert passed + chunk_filter.finish() == b"".join(event for event in events if event in EVENTS)


def test_the_filter_holds_no_more_than_an_event() -> None:
    chunk_filter = UsageChunkFilter()
    large = b"data: " + b"x" * EVENT_BYTES_MAX

    assert chunk_filter.feed(large) == large
    assert chunk_filter.feed(b"\n\n" + USAGE) == b"\n\n"
    assert chunk_filter.feed(USAGE[:-2]) == b""
    assert chunk_filter.finish() == b""
