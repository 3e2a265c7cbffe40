"""What the body of a request asks for, and what may come of it at most: the hold is made from the request itself.

A body is read as leniently as the laxest upstream reads it: with a byte order mark, NaN, lone surrogates, raw control
characters, in UTF-16, with something behind it, whatever its content type says.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from json import detect_encoding
from typing import Any

import orjson

from meter.charging.admission import Admitted
from meter.usage import Number

REQUEST_BYTES_MAX = 64 * 2**20
"""What providers take at most, images and files in a request included, and a little more."""
MEDIA_TOKENS = 1600
"""What a large image is counted as by those who tell: about Anthropic's most."""

_GZIP_OR_ZLIB = 47
_MEDIA = re.compile(rb"(?:;base64,|\"(?:data|bytes)\"\s*:\s*\")[A-Za-z0-9+/=_\\-]{1024,}+")
_LIMITS = (
    ("max_tokens",),
    ("max_completion_tokens",),
    ("max_output_tokens",),
    ("max_tokens_to_sample",),
    ("maxTokens",),
    ("max_new_tokens",),
    ("max_gen_len",),
    ("n_predict",),
    ("generationConfig", "maxOutputTokens"),
    ("inferenceConfig", "maxTokens"),
    ("textGenerationConfig", "maxTokenCount"),
    ("parameters", "max_new_tokens"),
    ("options", "num_predict"),
)
_TIMES = (("n",), ("best_of",), ("num_generations",), ("generationConfig", "candidateCount"))
_MOST = 2**53 - 1
_JSON = json.JSONDecoder(strict=False)


class Unreadable(ValueError):
    """A body that nobody can be sure how it is read."""


def document_of(body: bytes) -> object:
    """The JSON of a body. Raises `Unreadable`."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return lenient(body, _JSON)


def asks_background(body: bytes) -> bool:
    """Whether a request wants to be done in the background."""
    try:
        document = document_of(body)
    except Unreadable:
        return False
    return isinstance(document, dict) and bool(document.get("background"))


def lenient(body: bytes, decoder: json.JSONDecoder) -> object:
    """The first value of a body. Raises `Unreadable`."""
    text = body.decode(detect_encoding(body), "replace").lstrip("\ufeff \t\r\n")
    try:
        return decoder.raw_decode(text)[0]
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"the body is no JSON: {type(error).__name__}") from None


def unpacked(body: bytes, coding: bytes, bytes_max: int) -> bytes:
    """The body without its content coding. Raises `Unreadable` for one that is not known here, broken or too large."""
    for name in reversed([part.strip().lower() for part in coding.split(b",")]):
        if name in (b"", b"identity"):
            continue
        if name not in (b"gzip", b"x-gzip", b"deflate"):
            raise Unreadable("the content coding of the request cannot be read here")
        stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            body = stream.decompress(body, bytes_max + 1)
        except zlib.error:
            raise Unreadable("the body is not what its content coding says") from None
        if len(body) > bytes_max or not stream.eof or stream.unused_data:
            raise Unreadable("the coded body is cut off or too large")
    return body


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateRules:
    """How many credits a request is held for, as its owner has it. `maximum` None: no ceiling."""

    default: Number = 100
    minimum: Number = 1
    maximum: Number | None = None
    bytes_per_token: Number = 4
    believes_caller: bool = False
    """Whether what the client estimates is taken as it is; else it only ever raises ours."""

    def estimate(self, admitted: Admitted, body: bytes | None) -> Number:
        """From the bytes of the prompt and what the request allows to be generated; the default at least where it does
        not say how much. A body of None was not read.
        """
        if admitted.is_told and self.believes_caller:
            estimate = admitted.estimate
        else:
            estimate = max(self.default if body is None else self._of(body), self.minimum)
            estimate = max(estimate, admitted.estimate) if admitted.is_told else estimate
        return estimate if self.maximum is None else min(estimate, self.maximum)

    def _of(self, body: bytes) -> Number:
        media = _MEDIA.findall(body) if len(body) > 1024 else []
        text = len(body) - sum(map(len, media))
        prompt = int(-(-text // self.bytes_per_token)) + MEDIA_TOKENS * len(media)
        try:
            document = document_of(body)
        except Unreadable:
            document = None
        output = _output(document) if isinstance(document, dict) else None
        return max(prompt, self.default) if output is None else min(prompt + output, _MOST)


def _output(document: dict[str, Any]) -> int | None:
    """Tokens that may be generated; None where the request does not say."""
    limits = [limit for path in _LIMITS if (limit := _count(document, path)) is not None]
    if not limits:
        return None
    times = [time for path in _TIMES if (time := _count(document, path)) is not None]
    return min(max(limits), _MOST) * min(max(times, default=1), _MOST)


def _count(document: object, path: tuple[str, ...]) -> int | None:
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    is_number = isinstance(document, int | float) and not isinstance(document, bool)
    return int(document) if is_number and 0 < document <= _MOST else None  # type: ignore[operator, call-overload]
