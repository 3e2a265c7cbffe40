"""Recorded answers of model providers: each tells its tokens, wherever it is cut (K1, K2, K6, K7, K15)."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from meter.usage import Format, Reader, Unread, Usage, open_reader, shape_of

ANSWERS = json.loads((Path(__file__).parent / "answers" / "recorded.json").read_text())
AUTO = shape_of(Format.AUTO)

Headers = list[tuple[bytes, bytes]]


def answer(name: str) -> tuple[Headers, bytes]:
    """The headers and the body, without the transfer coding."""
    head, _, body = ANSWERS[name]["answer"].encode("latin-1").partition(b"\r\n\r\n")
    pairs = [line.split(b": ", 1) for line in head.split(b"\r\n")[1:]]
    headers = [(name.lower(), value) for name, value in pairs]
    if (b"transfer-encoding", b"chunked") not in headers:
        return headers, body
    whole = b""
    while True:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return headers, whole
        whole, body = whole + body[:length], body[length + 2 :]


def read(headers: Headers, *pieces: bytes) -> Reader:
    """The reader that has seen all the pieces."""
    coding = dict(headers).get(b"content-encoding", b"").decode()
    reader = open_reader(AUTO, content_encoding=coding, headers=headers)
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    return reader


def pieces_of(body: bytes, size: int) -> Iterator[bytes]:
    """The body in pieces of one size."""
    return (body[at : at + size] for at in range(0, len(body), size))


@pytest.mark.parametrize("name", ANSWERS)
def test_a_recorded_answer_tells_its_tokens_wherever_it_is_cut(name: str) -> None:
    headers, body = answer(name)
    usage = read(headers, body).usage

    assert (0 if usage is None else usage.total) == ANSWERS[name]["total_tokens"]
    for size in range(1, 8):
        assert read(headers, *pieces_of(body, size)).usage == usage
    for cut in range(len(body)):
        assert read(headers, body[:cut], body[cut:]).usage == usage


@pytest.mark.parametrize("name", [name for name in ANSWERS if "stream" in name])
def test_k2_an_event_needs_no_blank_line_and_no_content_type(name: str) -> None:
    headers, body = answer(name)
    if b"\x1f\x8b" in body:
        return
    parted_by_one = body.replace(b"\r\n\r\n", b"\r\n").replace(b"\n\n", b"\n")

    assert read([], parted_by_one).usage == read(headers, body).usage


def quantities(body: bytes) -> dict[str, object]:
    """The quantities of a body."""
    usage = read([], body).usage
    return {} if usage is None else dict(usage.quantities)


def test_quantities_do_not_contain_each_other() -> None:
    chat = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 30, "audio_tokens": 5},
    }
    assert quantities(json.dumps({"usage": chat}).encode()) == {
        "input": 30,
        "cache_read": 60,
        "audio_input": 10,
        "output": 15,
        "reasoning": 30,
        "audio_output": 5,
    }
    gemini = {
        "promptTokenCount": 10,
        "cachedContentTokenCount": 4,
        "toolUsePromptTokenCount": 3,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 70,
    }
    assert quantities(json.dumps([{"usageMetadata": gemini}]).encode()) == {
        "input": 9,
        "cache_read": 4,
        "output": 20,
        "reasoning": 70,
    }
    rerank = b'{"results":[],"meta":{"billed_units":{"search_units":2}}}'
    assert quantities(rerank) == {"search_units": 2}
    assert quantities(b'{"text":"hi","usage":{"type":"duration","seconds":9}}') == {"seconds": 9}
    assert quantities(b'{"usage":{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":9}}}') == {"cache_read": 5}


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"error":{"message":"overloaded"}}\n\n',
        b'{"error":{"code":503}}',
        b'[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}]',
        b'{"error":"model not found"}',
        b'data: {"type":"error","code":"server_error","message":"x"}\n\n',
        b'event: response.failed\ndata: {"type":"response.failed","response":{"status":"failed","usage":null}}\n\n',
    ],
)
def test_k15_a_good_status_with_a_failure_in_it_is_a_failure(body: bytes) -> None:
    for pieces in ([body], list(pieces_of(body, 1))):
        reader = read([], *pieces)
        assert (reader.failed, reader.usage) == (True, None)


@pytest.mark.parametrize(
    "body", [b'{"error":null,"total_token":1}', b'{"error":"","x":1}', b'{"error":false}', b"{}", b"", b"<html>"]
)
def test_k15_what_says_nothing_of_a_failure_is_none(body: bytes) -> None:
    assert not read([], body).failed


def message(payload: bytes, **headers: str) -> bytes:
    """An AWS event stream message."""
    packed = b"".join(
        bytes([len(name) + 1])
        + b":"
        + name.replace("_", "-").encode()
        + b"\x07"
        + struct.pack(">H", len(value))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed + payload
    return body + struct.pack(">I", zlib.crc32(body))


CONVERSE = [
    message(b'{"contentBlockIndex":0,"delta":{"text":"hi"}}', message_type="event", event_type="contentBlockDelta"),
    message(
        b'{"metrics":{"latencyMs":1},"usage":{"inputTokens":30,"outputTokens":70,"totalTokens":100}}',
        message_type="event",
        event_type="metadata",
    ),
]
METRICS = b'{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":25,"outputTokenCount":15}}'
INVOKE = [
    message(b'{"bytes":"' + base64.b64encode(METRICS) + b'","p":"abc"}', message_type="event", event_type="chunk")
]


@pytest.mark.parametrize(("messages", "total"), [(CONVERSE, 100), (INVOKE, 40)])
def test_k2_an_aws_event_stream_is_read(messages: list[bytes], total: int) -> None:
    body = b"".join(messages)
    for cut in range(len(body)):
        usage = read([(b"content-type", b"application/json")], body[:cut], body[cut:]).usage
        assert usage is not None
        assert usage.total == total


def test_k2_an_aws_message_with_a_wrong_checksum_tells_nothing() -> None:
    for at in (1, 9, len(CONVERSE[1]) - 20, len(CONVERSE[1]) - 1):
        broken = bytearray(CONVERSE[1])
        broken[at] ^= 1
        reader = read([], CONVERSE[0], bytes(broken), CONVERSE[1])
        assert (reader.usage, reader.unread) == (None, Unread.FRAMING)


def test_k15_an_aws_exception_is_a_failure() -> None:
    reader = read([], message(b'{"message":"slow down"}', message_type="exception", exception_type="throttling"))
    assert (reader.failed, reader.usage) == (True, None)


def test_headers_count_where_no_body_does() -> None:
    headers = [(b"X-Amzn-Bedrock-Input-Token-Count", b"25"), (b"X-Amzn-Bedrock-Output-Token-Count", b" 15 ")]
    assert read(headers, b'{"embedding":[0.1]}').usage == Usage(
        profile="bedrock-invoke", total=40, quantities={"input": 25, "output": 15}
    )
    told = read(headers, b'{"usage":{"input_tokens":1,"output_tokens":2}}').usage
    assert told is not None
    assert told.total == 3


def test_every_cell_of_the_table_of_providers_has_a_recorded_answer() -> None:
    page = Path(__file__).parents[2] / "docs" / "providers.md"
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in row.split("`")[1::2]}
    assert len(named) > 25
    assert named <= ANSWERS.keys()
