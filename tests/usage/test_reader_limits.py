from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter.usage import Format, Reader, Unread, Usage, open_reader, shape_of

BODY = b'{"text":"hi","total_token":42}'
STREAM = b'data: {"text":"hi"}\n\ndata: {"total_token":42}\n\ndata: [DONE]\n\n'
KEY = shape_of(Format.KEY, "total_token")
SEEN = Usage(profile=Format.KEY, total=42)


def read(reader: Reader, *pieces: bytes) -> Usage | None:
    for piece in pieces:
        reader.feed(piece)
    reader.finish()
    return reader.usage


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "gzip, gzip, gzip", "nonsense"])
def test_unsupported_encoding_reports_nothing_and_says_so(encoding: str) -> None:
    reader = open_reader(KEY, content_encoding=encoding)
    assert read(reader, BODY) is None
    assert reader.unread is Unread.CODING


@pytest.mark.parametrize("encoding", [None, "", "identity", "gzip", "deflate", "X-GZIP"])
def test_supported_encoding_is_not_reported(encoding: str | None) -> None:
    reader = open_reader(KEY, content_encoding=encoding)
    assert reader.unread is Unread.NONE_TOLD


def test_big_terminal_event_of_the_responses_api_is_read() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    response = {"instructions": "x" * 500_000, "usage": usage}
    stream = b"data: " + json.dumps({"type": "response.completed", "response": response}).encode()
    for fmt in (Format.OPENAI_RESPONSES, Format.AUTO):
        seen = read(open_reader(shape_of(fmt)), stream)
        assert seen is not None
        assert seen.total == 3


def test_k3_no_event_is_too_big() -> None:
    big = b'data: {"total_token":1,"text":"' + b"x" * 10_000_000 + b'"}\n\n'
    assert read(open_reader(KEY), big) == Usage(profile=Format.KEY, total=1)
    assert read(open_reader(KEY), big, STREAM) == SEEN


def test_k3_usage_behind_17_mb_of_numbers_is_read() -> None:
    vector = b"[" + b",".join([b"-0.0123456789012345678"] * 1536) + b"]"
    item = b'{"object":"embedding","index":1,"embedding":' + vector + b"}"
    body = b'{"data":[' + b",".join([item] * 512) + b'],"model":"m","usage":{"prompt_tokens":4096,"total_tokens":4096}}'
    assert len(body) > 17_000_000
    seen = read(open_reader(shape_of(Format.AUTO)), *(body[at : at + 65536] for at in range(0, len(body), 65536)))
    assert seen is not None
    assert (seen.total, seen.model) == (4096, "m")


@pytest.mark.parametrize(("encoding", "encode"), [("identity", bytes), ("gzip", gzip.compress)])
@pytest.mark.parametrize("step", [1000, 10**9])
def test_looking_stops_at_the_limit(encoding: str, encode: Callable[[bytes], bytes], step: int) -> None:
    body = b'{"text":"' + b"x" * 200_000 + b'","total_token":42}'
    wire = encode(body + b" " * 100)
    for limit, exhausted in ((len(body), False), (len(body) - 1, True)):
        reader = open_reader(KEY, content_encoding=encoding, inspect_bytes_max=limit)
        usage = read(reader, *(wire[start : start + step] for start in range(0, len(wire), step)))
        assert (usage is None) is exhausted
        assert usage is not None or reader.unread is Unread.TOO_LARGE


def test_bomb_is_dropped_at_the_limit() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(b'{"text":"')
    bomb += b"".join(packer.compress(b" " * 2**20) for _ in range(64))
    reader = open_reader(KEY, content_encoding="gzip", inspect_bytes_max=2**20)
    assert read(reader, bomb) is None
    assert reader.unread is Unread.TOO_LARGE


@pytest.mark.parametrize("wire", [gzip.compress(b"x" * 2**16), b"plain", b"\x1f\x8b\x08", b""])
def test_encoding_that_is_wrongly_named_gives_no_usage(wire: bytes) -> None:
    for encoding in ("gzip", "deflate", "identity", None):
        reader = open_reader(KEY, content_encoding=encoding)
        assert read(reader, wire) is None


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=20), st.text(max_size=20))
def test_random_headers_never_raise(value: bytes, encoding: str) -> None:
    headers = [(name.encode(), value) for name in shape_of(Format.AUTO).headers]
    read(open_reader(shape_of(Format.AUTO), content_encoding=encoding, headers=headers), BODY)
