"""What the body of a request asks for, and what may come of it at most: the hold is made from the request itself.

A body is read as leniently as the laxest upstream reads it: with a byte order mark, NaN, lone surrogates, raw control
characters, in UTF-16, with something behind it, whatever its content type says.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from json import detect_encoding
from typing import Any, NamedTuple

import orjson

from meter.charging.admission import Admitted
from meter.charging.models import model_asked
from meter.charging.priced import WireUsage, whole, wire_usage
from meter.usage import Number

REQUEST_BYTES_MAX = 64 * 2**20
"""What providers take at most, images and files in a request included, and a little more."""
MEDIA_TOKENS = 1600
"""What a large image is counted as by those who tell: about Anthropic's most."""

_GZIP_OR_ZLIB = 47
_MEDIA = re.compile(rb"(?:;base64,|\"(?:data|bytes)\"\s*:\s*\")[A-Za-z0-9+/=_\\-]{1024,}+")
_LIMITS = frozenset(
    (
        *("maxtokens", "maxcompletiontokens", "maxoutputtokens", "maxtokenstosample", "maxnewtokens", "maxgenlen"),
        *("npredict", "numpredict", "maxtokencount"),
    )
)
"""What bounds the output, by any provider, as names are compared here: in small letters and without `_`, because
protobuf's JSON takes `max_output_tokens` for `maxOutputTokens`, and Go takes any case."""
_TIMES = frozenset(("n", "bestof", "numgenerations", "candidatecount"))
_CONFIGS = frozenset(("generationconfig", "inferenceconfig", "textgenerationconfig", "parameters", "options", "config"))
"""Objects of a request in which such members may stand, too."""
_UNITS = (("/images/", "images"), ("/audio/", "seconds"), ("rerank", "search_units"), ("/classify", "classifications"))
_MOST = 2**53 - 1
_DIGITS_MAX = 16
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


class Estimate(NamedTuple):
    """What a request may come to."""

    amount: Number
    """Tokens together: the credits to hold where nothing has a price."""
    usage: WireUsage
    """The same for a rate card; without `max_output` where the request does not say how much it may generate."""
    output: int = 0
    """Tokens of output to hold where neither the request nor the card bounds them."""
    choices: int = 1
    """How many answers there may be, each as long as the card says."""
    unit: str = ""
    """What else than tokens such a request may be priced by."""

    def instead(self, usage: WireUsage, why: str) -> WireUsage | None:
        """What to ask for where a card does not price a usage: the request is not refused for what was guessed about
        it. None where nothing else is left.
        """
        dimension = why.removeprefix("/usage/").partition(":")[0]
        if not why.startswith("/usage/") or dimension not in ("max_output", "input", self.unit):
            return None
        if dimension == "max_output":
            return None if dimension in usage else {**usage, "max_output": self.output}
        rest = {name: value for name, value in usage.items() if name not in ("input", "max_output", self.unit)}
        return {**rest, self.unit: self.choices} if dimension == "input" and self.unit else rest


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateRules:
    """How many credits a request is held for, as its owner has it. `maximum` None: no ceiling."""

    default: Number = 100
    minimum: Number = 1
    maximum: Number | None = None
    bytes_per_token: Number = 4
    believes_caller: bool = False
    """Whether what the client estimates is taken as it is; else it only ever raises ours."""

    def estimate(self, admitted: Admitted, body: bytes | None, path: str = "") -> Estimate:
        """From the bytes of the prompt and what the request allows to be generated; the default at least where it does
        not say how much. A body of None was not read.
        """
        try:
            document = None if body is None else document_of(body)
        except Unreadable:
            document = None
        prompt = 0 if body is None else self._prompt(body)
        bound, choices = _output(document) if isinstance(document, dict) else (None, 1)
        if admitted.is_told and self.believes_caller:
            amount = admitted.estimate
        else:
            amount = max(prompt, self.default) if bound is None else min(prompt + bound, _MOST)
            amount = max(amount, self.minimum, admitted.estimate if admitted.is_told else 0)
        amount = amount if self.maximum is None else min(amount, self.maximum)
        usage = wire_usage(model_asked(path, document, body), self._quantities(admitted, amount, prompt, bound))
        output = max(whole(self.default) * choices, whole(amount) - prompt)
        return Estimate(amount, usage, output, choices, next((unit for part, unit in _UNITS if part in path), ""))

    def _quantities(self, admitted: Admitted, amount: Number, prompt: int, output: int | None) -> dict[str, int]:
        """What goes in, and at most comes out where anybody but the card says so. Without a prompt to count, as much of
        both as is estimated.
        """
        tokens = whole(amount)
        if not prompt:
            return {"input": tokens, "max_output": tokens}
        quantities = {"input": min(prompt, tokens)}
        if output is not None or self.maximum is not None or (admitted.is_told and self.believes_caller):
            most = tokens if output is not None or self.maximum is None else whole(self.maximum)
            quantities["max_output"] = max(0, most - prompt)
        return quantities

    def _prompt(self, body: bytes) -> int:
        media = _MEDIA.findall(body) if len(body) > 1024 else []
        text = len(body) - sum(map(len, media))
        return int(-(-text // self.bytes_per_token)) + MEDIA_TOKENS * len(media)


def _output(document: dict[str, Any]) -> tuple[int | None, int]:
    """Tokens that may be generated, None where the request does not say, and by how many answers."""
    limit, choices = 0, 1
    for name, value in _named(document):
        if name in _LIMITS:
            limit = max(limit, _count(value))
        elif name in _TIMES:
            choices = max(choices, _count(value))
    return (min(limit * choices, _MOST) if limit else None), choices


def _named(document: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """The members of a request, and those of the objects that configure what it generates."""
    for spelling, value in document.items():
        name = spelling.replace("_", "").lower()
        if isinstance(value, dict) and name in _CONFIGS:
            for inner, item in value.items():
                yield inner.replace("_", "").lower(), item
        else:
            yield name, value


def _count(value: object) -> int:
    """A number of tokens or answers, which some upstreams also take as a text; 0 for what is none."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) <= _DIGITS_MAX else 0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 < value <= _MOST else 0  # type: ignore[operator, call-overload]
