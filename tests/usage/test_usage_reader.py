from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter.usage import Format, Number, Shape, Usage, open_reader, shape_of


def event(data: object, name: str | None = None) -> bytes:
    head = b"" if name is None else f"event: {name}\n".encode()
    body = data.encode() if isinstance(data, str) else json.dumps(data).encode()
    return head + b"data: " + body + b"\n\n"


def chat_chunk(content: str | None, usage: object = None) -> dict[str, object]:
    choices: list[object] = []
    if content is not None:
        delta = {"role": "assistant", "content": content}
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]
    return {
        "id": "chatcmpl-B9",
        "object": "chat.completion.chunk",
        "created": 1741570283,
        "model": "gpt-4.1-mini",
        "choices": choices,
        "usage": usage,
    }


CHAT_USAGE = {
    "prompt_tokens": 1117,
    "completion_tokens": 46,
    "total_tokens": 1163,
    "prompt_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "accepted_prediction_tokens": 0},
}
CHAT_SEEN = Usage(
    profile="openai-chat",
    total=1163,
    quantities={"input": 1117 - 1024, "cache_read": 1024, "output": 46},
    model="gpt-4.1-mini",
)
CHAT_BODY = json.dumps(
    {
        "id": "chatcmpl-B9",
        "object": "chat.completion",
        "model": "gpt-4.1-mini",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": 'say "usage": {"total_tokens": 9} é\n'},
                "finish_reason": "stop",
            }
        ],
        "usage": CHAT_USAGE,
        "service_tier": "default",
    }
).encode()
CHAT_STREAM = b"".join(
    [
        event(chat_chunk("")),
        event(chat_chunk('{"usage": {"total_tokens": 9}}')),
        b": OPENROUTER PROCESSING\n\n",
        event(chat_chunk("w\u00f6rld \\u0041")),
        event(chat_chunk(None, CHAT_USAGE)),
        event("[DONE]"),
    ]
)

RESPONSES_USAGE = {
    "input_tokens": 328,
    "input_tokens_details": {"cached_tokens": 256, "cache_write_tokens": 64},
    "output_tokens": 52,
    "output_tokens_details": {"reasoning_tokens": 7},
    "total_tokens": 380,
}
RESPONSES_SEEN = Usage(
    profile="input-output",
    total=380,
    quantities={"input": 328 - 256 - 64, "cache_read": 256, "cache_write": 64, "output": 45, "reasoning": 7},
)
RESPONSE = {
    "id": "resp_67",
    "object": "response",
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hi"}]}],
    "usage": RESPONSES_USAGE,
    "metadata": {},
}
RESPONSES_BODY = json.dumps(RESPONSE).encode()


def responses_stream(last: str) -> bytes:
    started = {**RESPONSE, "status": "in_progress", "output": [], "usage": None}
    delta = {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Hi"}
    return b"".join(
        [
            event({"type": "response.created", "response": started}, "response.created"),
            event({"type": "response.in_progress", "response": started}, "response.in_progress"),
            event(delta, "response.output_text.delta"),
            event({"type": last, "response": RESPONSE, "sequence_number": 4}, last),
        ]
    )


ANTHROPIC_SEEN = Usage(
    profile="input-output",
    total=2095 + 300 + 1000 + 503,
    quantities={"input": 2095, "cache_read": 1000, "cache_write": 300, "output": 503},
)
ANTHROPIC_BODY = json.dumps(
    {
        "id": "msg_013Zva",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "usage": {
            "input_tokens": 2095,
            "cache_creation_input_tokens": 300,
            "cache_read_input_tokens": 1000,
            "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 503,
            "service_tier": "standard",
        },
    }
).encode()
MESSAGE_START = event(
    {
        "type": "message_start",
        "message": {
            "id": "msg_014",
            "type": "message",
            "content": [],
            "stop_reason": None,
            "usage": {
                "input_tokens": 2095,
                "cache_creation_input_tokens": 300,
                "cache_read_input_tokens": 1000,
                "output_tokens": 2,
            },
        },
    },
    "message_start",
)


def message_delta(**usage: object) -> bytes:
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    return event({"type": "message_delta", "delta": delta, "usage": usage}, "message_delta")


ANTHROPIC_STREAM = b"".join(
    [
        MESSAGE_START,
        event({"type": "content_block_start", "index": 0}, "content_block_start"),
        event({"type": "ping"}, "ping"),
        event({"type": "content_block_delta", "delta": {"text": "Hi"}}, "content_block_delta"),
        message_delta(output_tokens=15),
        message_delta(output_tokens=503, input_tokens=None, cache_read_input_tokens=1000),
        event({"type": "message_stop"}, "message_stop"),
    ]
)

KEY_SEEN = Usage(profile=Format.KEY, total=42)
SAMPLES: list[tuple[Format, str | None, bytes, Usage]] = [
    (Format.KEY, "total_token", b'{"text":"hi","total_token":42}', KEY_SEEN),
    (Format.KEY, "usage.total_tokens", b'{"usage":{"total_tokens":42}}', KEY_SEEN),
    (
        Format.KEY,
        "usage.total_tokens",
        b'data: {"usage":{"total_tokens":1}}\n\ndata: {"usage":{"total_tokens":42}}\r\n\r\n'
        b'data: {"usage":null}\n\ndata: {"usage":{"total_tokens":"x"}}\n\ndata: [DONE]\n\n',
        KEY_SEEN,
    ),
    (Format.OPENAI_CHAT, None, CHAT_BODY, CHAT_SEEN),
    (Format.OPENAI_CHAT, None, CHAT_STREAM, CHAT_SEEN),
    (Format.OPENAI_RESPONSES, None, RESPONSES_BODY, RESPONSES_SEEN),
    *(
        (Format.OPENAI_RESPONSES, None, responses_stream(f"response.{last}"), RESPONSES_SEEN)
        for last in ("completed", "incomplete", "failed")
    ),
    (Format.ANTHROPIC, None, ANTHROPIC_BODY, ANTHROPIC_SEEN),
    (Format.ANTHROPIC, None, ANTHROPIC_STREAM, ANTHROPIC_SEEN),
]
AUTO_SAMPLES = [(Format.AUTO, *sample[1:]) for sample in SAMPLES]
SHAPES: list[Shape] = [
    shape_of(Format.KEY, "usage.total_tokens"),
    shape_of(Format.OPENAI_CHAT),
    shape_of(Format.OPENAI_RESPONSES),
    shape_of(Format.ANTHROPIC),
    shape_of(Format.AUTO),
    shape_of(Format.AUTO, "total_token"),
]


def read(shape: Shape, *pieces: bytes, encoding: str | None = None) -> Usage | None:
    reader = open_reader(shape, content_encoding=encoding)
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    return reader.usage


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(("fmt", "key", "body", "seen"), SAMPLES + AUTO_SAMPLES)
def test_sample_reads_the_same_at_every_cut(fmt: Format, key: str | None, body: bytes, seen: Usage) -> None:
    shape = shape_of(fmt, key)
    if fmt is Format.AUTO and key == "usage.total_tokens":
        # The key only repeats what the profile says.
        seen = Usage(profile="openai-chat", total=42)
    assert read(shape, body) == seen
    for position in range(len(body) + 1):
        assert read(shape, body[:position], body[position:]) == seen
    assert read(shape, *(bytes([byte]) for byte in body)) == seen


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        (" GZip ", gzip.compress),
        ("identity, x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
        ("", bytes),
    ],
)
@pytest.mark.parametrize(("fmt", "key", "body", "seen"), SAMPLES)
def test_sample_reads_the_same_encoded(
    fmt: Format,
    key: str | None,
    body: bytes,
    seen: Usage,
    encoding: str,
    encode: Callable[[bytes], bytes],
) -> None:
    shape = shape_of(fmt, key)
    wire = encode(body)
    assert read(shape, wire, encoding=encoding) == seen
    assert read(shape, *(bytes([b]) for b in wire), encoding=encoding) == seen


@pytest.mark.parametrize("value", [b"null", b'"x"', b"true", b"-1", b"1e999", b"[1]", b"{}", b"NaN"])
def test_what_is_no_amount_is_no_usage(value: bytes) -> None:
    shape = shape_of(Format.KEY, "usage.total_tokens")
    body = b'{"usage":{"total_tokens":' + value + b"}}"
    assert read(shape, body) is None
    assert read(shape, b"data: " + body + b"\n\n") is None


def test_fraction_stays_exact() -> None:
    usage = read(shape_of(Format.KEY, "credits"), b'{"credits":0.1}')
    assert usage is not None
    assert usage.total == Decimal("0.1")


def test_stream_without_usage_has_none() -> None:
    stream = event(chat_chunk("a")) + event(chat_chunk("b")) + event("[DONE]")
    for shape in SHAPES:
        assert read(shape, stream) is None


def test_total_is_summed_when_the_upstream_gives_none() -> None:
    body = b'{"usage":{"prompt_tokens":5,"completion_tokens":7}}'
    for fmt in (Format.OPENAI_CHAT, Format.AUTO):
        usage = read(shape_of(fmt), body)
        assert usage is not None
        assert (usage.total, usage.profile) == (12, "openai-chat")


def test_embeddings_have_no_output() -> None:
    body = b'{"object":"list","data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}'
    seen = Usage(profile="openai-chat", total=8, quantities={"input": 8})
    assert read(shape_of(Format.AUTO), body) == seen


def test_continuous_chat_usage_is_replaced_not_added() -> None:
    stream = b"".join(
        event(chat_chunk("x", {"prompt_tokens": 9, "completion_tokens": n, "total_tokens": 9 + n})) for n in range(1, 6)
    )
    usage = read(shape_of(Format.OPENAI_CHAT), stream)
    assert usage is not None
    assert usage.total == 14


def test_k1_message_delta_takes_nothing_back() -> None:
    reader = open_reader(shape_of(Format.ANTHROPIC))
    seen: list[tuple[Number, Number | None, Number | None]] = []
    for piece in (
        MESSAGE_START,
        message_delta(output_tokens=10),
        message_delta(output_tokens=20, input_tokens=2100, cache_creation_input_tokens=None),
        message_delta(output_tokens=30, input_tokens=0),
    ):
        reader.feed(piece)
        assert reader.usage is not None
        found = reader.usage
        seen.append((found.total, found.quantities.get("input"), found.quantities.get("output")))
    assert seen == [
        (3397, 2095, 2),
        (3405, 2095, 10),
        (3420, 2100, 20),
        (3430, 2100, 30),
    ]


def test_abandoned_message_stream_still_tells_its_input() -> None:
    usage = read(shape_of(Format.AUTO), MESSAGE_START, b'event: message_delta\ndata: {"usage":{"out')
    assert usage is not None
    assert usage.quantities == {"input": 2095, "cache_read": 1000, "cache_write": 300, "output": 2}


def test_configured_key_wins_over_the_api_shapes() -> None:
    shape = shape_of(Format.AUTO, "credits_used")
    body = b'{"usage":{"prompt_tokens":5,"completion_tokens":7,"total_tokens":12},"credits_used":3}'
    assert read(shape, body) == Usage(profile=Format.KEY, total=3)
    stream = event({"credits_used": 3}) + event(chat_chunk(None, CHAT_USAGE))
    assert read(shape, stream) == Usage(profile=Format.KEY, total=3, model="gpt-4.1-mini")
    assert read(shape, event(chat_chunk(None, CHAT_USAGE))) == CHAT_SEEN


def test_key_that_repeats_an_api_total_keeps_the_other_fields() -> None:
    shape = shape_of(Format.AUTO, "usage.total_tokens")
    assert read(shape, CHAT_BODY) == CHAT_SEEN
    assert read(shape, ANTHROPIC_BODY) == ANTHROPIC_SEEN


def test_usage_object_that_is_cut_does_not_count() -> None:
    cut = CHAT_BODY.index(b'"total_tokens": 1163')
    for shape in (shape_of(Format.OPENAI_CHAT), shape_of(Format.AUTO)):
        assert read(shape, CHAT_BODY[: cut + 21]) is None
    assert read(shape_of(Format.KEY, "usage.total_tokens"), CHAT_BODY[: cut + 19]) is None
    seen = read(shape_of(Format.KEY, "usage.total_tokens"), CHAT_BODY[: cut + 21])
    assert seen == Usage(profile=Format.KEY, total=1163, model="gpt-4.1-mini")


def test_k6_two_numbers_of_any_name_are_added() -> None:
    shape = shape_of(Format.KEY, "meta.in+meta.out[+].n")
    assert read(shape, b'{"meta":{"in":5,"out":[{"n":2},{"n":"3"}]}}') == Usage(profile=Format.KEY, total=10)
    assert read(shape, b'{"meta":{"in":5,"out":[{"n":2}') is None


def test_usage_of_a_body_is_known_before_the_body_ends() -> None:
    reader = open_reader(shape_of(Format.OPENAI_CHAT))
    reader.feed(CHAT_BODY[:-10])
    assert reader.usage == CHAT_SEEN
    reader.finish()
    reader.feed(b"more")
    assert reader.usage == CHAT_SEEN


def test_truncated_gzip_gives_usage_seen_so_far() -> None:
    packer = zlib.compressobj(wbits=31)
    wire = packer.compress(MESSAGE_START) + packer.flush(zlib.Z_SYNC_FLUSH)
    wire += packer.compress(message_delta(output_tokens=9) * 50) + packer.flush()
    usage = read(shape_of(Format.ANTHROPIC), wire[:-12], encoding="gzip")
    assert usage is not None
    assert usage.quantities["input"] == 2095
    early = b'{"total_token":42,"text":"' + b"".join(b"%d " % n**5 for n in range(5000)) + b'"}'
    wire = gzip.compress(early)
    shape = shape_of(Format.KEY, "total_token")
    assert read(shape, wire[: len(wire) // 2], encoding="gzip") == KEY_SEEN


@pytest.mark.parametrize(
    ("fmt", "key"),
    [
        (Format.KEY, None),
        (Format.KEY, ""),
        (Format.KEY, "a..b"),
        (Format.AUTO, ""),
        (Format.ANTHROPIC, "a"),
        (Format.OPENAI_CHAT, "a"),
    ],
)
def test_wrong_key_is_refused_when_the_shape_is_built(fmt: Format, key: str | None) -> None:
    with pytest.raises(ValueError, match="key"):
        shape_of(fmt, key)


bodies = st.sampled_from([sample[2] for sample in SAMPLES])


@settings(max_examples=150, deadline=None)
@given(bodies, st.sampled_from(SHAPES), st.data())
def test_mutated_samples_never_raise_and_read_the_same_in_pieces(
    body: bytes, shape: Shape, data: st.DataObject
) -> None:
    mutated = bytearray(body)
    for _ in range(data.draw(st.integers(0, 4))):
        position = data.draw(st.integers(0, len(mutated)))
        mutated[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    whole = bytes(mutated)
    positions = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=10)))
    edges = [0, *positions, len(whole)]
    pieces = [whole[a:b] for a, b in pairwise(edges)]
    seen = read(shape, whole)
    assert read(shape, *pieces) == seen
    packed = gzip.compress(whole)
    assert read(shape, packed[:40], packed[40:], encoding="gzip") == seen


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.binary(max_size=50)),
    st.sampled_from(SHAPES),
    st.sampled_from([None, "gzip", "deflate", "br"]),
)
def test_random_bytes_never_raise(pieces: list[bytes], shape: Shape, encoding: str | None) -> None:
    read(shape, *pieces, encoding=encoding)
