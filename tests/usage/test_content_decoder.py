from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meter.usage.decoder import PIECE_BYTES_MAX, Decoder, open_decoder

TEXT = b"".join(b'{"n":%d,"s":"%x"}' % (n, n * 2654435761) for n in range(20_000))


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def two_members(data: bytes) -> bytes:
    return gzip.compress(data[:100]) + gzip.compress(b"") + b"\0" * 7 + gzip.compress(data[100:])


def decoder_of(coding: str) -> Decoder:
    decoder = open_decoder(coding)
    assert decoder is not None
    return decoder


def decode(coding: str, *pieces: bytes) -> bytes:
    decoder = decoder_of(coding)
    decoded = [out for piece in pieces for out in decoder.decode(piece)]
    assert all(len(out) <= PIECE_BYTES_MAX for out in decoded)
    return b"".join(decoded)


CODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("", bytes),
    ("identity", bytes),
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("gzip", two_members),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
]


@pytest.mark.parametrize(("coding", "encode"), CODINGS)
def test_decodes_what_was_encoded(coding: str, encode: Callable[[bytes], bytes]) -> None:
    encoded = encode(TEXT)
    assert decode(coding, encoded) == TEXT
    assert decode(coding, *(encoded[i : i + 777] for i in range(0, len(encoded), 777))) == TEXT
    assert decode(coding, *(bytes([byte]) for byte in encoded[:5000])) == decode(coding, encoded[:5000])


@pytest.mark.parametrize(("coding", "encode"), CODINGS)
@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES_MAX - 1, PIECE_BYTES_MAX, PIECE_BYTES_MAX * 3])
def test_sizes_around_a_piece(coding: str, encode: Callable[[bytes], bytes], size: int) -> None:
    body = b"0" * size
    assert decode(coding, encode(body)) == body


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("window", range(9, 16))
def test_zlib_header_is_told_from_raw_deflate(level: int, window: int) -> None:
    for wbits in (window, -window):
        packer = zlib.compressobj(level, wbits=wbits)
        assert decode("deflate", packer.compress(b"hello" * 9) + packer.flush()) == b"hello" * 9


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, br", "gzip, gzip, gzip", "gzip\x00"])
def test_unknown_coding_has_no_decoder(coding: str) -> None:
    assert open_decoder(coding) is None


def test_two_codings_come_off_in_turn() -> None:
    assert decode("gzip, deflate", zlib.compress(gzip.compress(TEXT))) == TEXT


def test_cut_stream_gives_what_came() -> None:
    encoded = gzip.compress(TEXT)
    decoded = decode("gzip", encoded[: len(encoded) // 2])
    assert len(decoded) > len(TEXT) // 3
    assert TEXT.startswith(decoded)


def test_flushed_stream_is_decoded_at_once() -> None:
    packer = zlib.compressobj(wbits=31)
    decoder = decoder_of("gzip")
    for event in (b"data: 1\n\n", b"data: 2\n\n"):
        wire = packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH)
        assert b"".join(decoder.decode(wire)) == event


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_broken_stream_ends_the_decoding(coding: str) -> None:
    decoder = decoder_of(coding)
    assert list(decoder.decode(b"\x78\x9c\xff\xff\xff\xff not compressed")) == []
    assert decoder.ended
    assert list(decoder.decode(gzip.compress(b"later"))) == []


def test_garbage_behind_a_stream_is_ignored() -> None:
    assert decode("gzip", gzip.compress(b"a") + b"garbage" + gzip.compress(b"b")) == b"a"
    assert decode("deflate", zlib.compress(b"a") + zlib.compress(b"b")) == b"a"


def test_bomb_comes_out_in_pieces() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(256)) + packer.flush()
    assert len(bomb) < 2**19
    decoder = decoder_of("gzip")
    total = 0
    tracemalloc.start()
    try:
        for piece in decoder.decode(bomb):
            total += len(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 2**28
    assert peak < 6 * PIECE_BYTES_MAX


def test_many_tiny_members_take_no_quadratic_time() -> None:
    member = gzip.compress(b"")
    assert decode("gzip", member * 20_000 + gzip.compress(b"end")) == b"end"


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["gzip", "deflate", "identity"]), st.lists(st.binary(max_size=60)), st.data())
def test_random_bytes_never_raise(coding: str, pieces: list[bytes], data: st.DataObject) -> None:
    decode(coding, *pieces)
    encoded = bytearray(gzip.compress(b"".join(pieces) * 5))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    decode(coding, bytes(encoded))


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(CODINGS), st.binary(max_size=2000), st.data())
def test_random_pieces_decode_as_the_whole(
    coding: tuple[str, Callable[[bytes], bytes]], body: bytes, data: st.DataObject
) -> None:
    name, encode = coding
    encoded = encode(body)
    positions = sorted(data.draw(st.sets(st.integers(0, len(encoded)), max_size=8)))
    edges = [0, *positions, len(encoded)]
    pieces = [encoded[a:b] for a, b in pairwise(edges)]
    assert decode(name, *pieces) == body
