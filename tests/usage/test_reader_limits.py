from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter.usage import Format, Reader, Usage, open_reader, shape_of

JSON = "application/json"
SSE = "text/event-stream"
BODY = b'{"text":"hi","total_token":42}'
STREAM = b'data: {"text":"hi"}\n\ndata: {"total_token":42}\n\ndata: [DONE]\n\n'
KEY = shape_of(Format.KEY, "total_token")
SEEN = Usage(format=Format.KEY, total=42)


def read(reader: Reader, *pieces: bytes) -> Usage | None:
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    return reader.usage


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "gzip, gzip", "nonsense"])
def test_unsupported_encoding_reports_nothing_and_says_so(encoding: str) -> None:
    reader = open_reader(KEY, content_type=JSON, content_encoding=encoding)
    assert read(reader, BODY) is None
    assert reader.unsupported_encoding == encoding
    assert not reader.exhausted


@pytest.mark.parametrize("encoding", [None, "", "identity", "gzip", "deflate", "X-GZIP"])
def test_supported_encoding_is_not_reported(encoding: str | None) -> None:
    reader = open_reader(KEY, content_type=None, content_encoding=encoding)
    assert reader.unsupported_encoding is None


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/problem+json"])
def test_other_content_types_are_read_as_json(content_type: str | None) -> None:
    assert read(open_reader(KEY, content_type=content_type), BODY) == SEEN


@pytest.mark.parametrize("content_type", ["text/event-stream", " Text/Event-Stream ;x=y"])
def test_event_stream_is_told_by_its_media_type(content_type: str) -> None:
    assert read(open_reader(KEY, content_type=content_type), STREAM) == SEEN


def test_big_terminal_event_of_the_responses_api_is_read() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    response = {"instructions": "x" * 500_000, "usage": usage}
    stream = b"data: " + json.dumps({"type": "response.completed", "response": response}).encode()
    for fmt in (Format.OPENAI_RESPONSES, Format.AUTO):
        seen = read(open_reader(shape_of(fmt), content_type=SSE), stream)
        assert seen is not None
        assert seen.total == 3
        small = open_reader(shape_of(fmt), content_type=SSE, event_bytes_max=65536)
        assert read(small, stream) is None


def test_event_that_is_too_big_is_skipped() -> None:
    big = b'data: {"total_token":1,"text":"' + b"x" * 10_000_000 + b'"}\n\n'
    assert read(open_reader(KEY, content_type=SSE), big) is None
    assert read(open_reader(KEY, content_type=SSE), big, STREAM) == SEEN


@pytest.mark.parametrize(("encoding", "encode"), [("identity", bytes), ("gzip", gzip.compress)])
@pytest.mark.parametrize("step", [1000, 10**9])
def test_looking_stops_at_the_limit(encoding: str, encode: Callable[[bytes], bytes], step: int) -> None:
    body = b'{"text":"' + b"x" * 200_000 + b'","total_token":42}'
    wire = encode(body + b" " * 100)
    for limit, exhausted in ((len(body), False), (len(body) - 1, True)):
        reader = open_reader(KEY, content_type=JSON, content_encoding=encoding, inspect_bytes_max=limit)
        usage = read(reader, *(wire[start : start + step] for start in range(0, len(wire), step)))
        assert (usage is None) is exhausted
        assert reader.exhausted is exhausted


@pytest.mark.parametrize("content_type", [JSON, SSE])
def test_bomb_is_dropped_at_the_limit(content_type: str) -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(b'{"text":"')
    bomb += b"".join(packer.compress(b" " * 2**20) for _ in range(64))
    reader = open_reader(KEY, content_type=content_type, content_encoding="gzip", inspect_bytes_max=2**20)
    assert read(reader, bomb) is None
    assert reader.exhausted


def test_body_that_is_no_json_is_dropped_at_once() -> None:
    reader = open_reader(KEY, content_type="text/html", inspect_bytes_max=10)
    assert read(reader, b"<html>", b"<body>" * 100) is None
    assert not reader.exhausted


@pytest.mark.parametrize("content_type", [JSON, SSE])
@pytest.mark.parametrize("wire", [gzip.compress(b"x" * 2**16), b"plain", b"\x1f\x8b\x08", b""])
def test_encoding_that_is_wrongly_named_gives_no_usage(content_type: str, wire: bytes) -> None:
    for encoding in ("gzip", "deflate", "identity", None):
        reader = open_reader(KEY, content_type=content_type, content_encoding=encoding)
        assert read(reader, wire) is None


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_random_headers_never_raise(content_type: str, encoding: str) -> None:
    read(open_reader(KEY, content_type=content_type, content_encoding=encoding), BODY)
