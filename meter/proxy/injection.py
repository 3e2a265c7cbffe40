"""Usage from OpenAI chat completions that stream, whose clients did not ask for it.

The request gets `stream_options.include_usage`; the extra chunk that this brings (`choices: []` with the usage) is
taken out of the response again. No spelling of the request gets around that: path, content type and body are read as
the laxest upstream would, and what cannot be rewritten for certain is refused.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from meter.charging.asking import document_of, lenient
from meter.charging.paths import readings_of

EVENT_BYTES_MAX = 64 * 1024
"""An event that is larger, or not whole yet, is no usage chunk."""

_PATH_END = "/completions"
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_OPENING = re.compile(rb"\s*\{")
_STREAM, _OPTIONS = "stream", "stream_options"
_NAMES = (b'"stream"', b'"stream_options"', b'"include_usage"')
_NOT = (None, False, 0, "", "false", "False", "0", "no", "off", "n", "f")
_CHUNK = frozenset(
    ("id", "object", "created", "model", "choices", "usage", "system_fingerprint", "service_tier", "obfuscation")
)
"""Members of a usage chunk that tell a client nothing that it misses."""


def may_inject(method: str, path: str) -> bool:
    """Whether a request can be one that `with_usage` changes, by any reading of its path."""
    if method != "POST":
        return False
    readings = readings_of(path)
    return not readings or any(reading.rstrip("/").lower().endswith(_PATH_END) for reading in readings)


def with_usage(body: bytes) -> bytes | None:
    """The request that asks for the usage; None when it does so already, or streams nothing. Raises `Unreadable` for
    what is no JSON.
    """
    if not body.strip():
        return None
    plain = _plain(body)
    if plain is None:
        return _rewritten(body)
    if plain.get(_STREAM) in _NOT:
        return None
    options = plain.get(_OPTIONS)
    if _OPTIONS not in plain:
        # Put in front, so that every other byte stays as the client wrote it.
        return _OPENING.sub(b'{"stream_options":{"include_usage":true},', body, count=1)
    if isinstance(options, dict) and options.get("include_usage") is True:
        return None
    return _rewritten(body)


def _plain(body: bytes) -> dict[str, Any] | None:
    """The request, where all readers agree on it: strict JSON in which what counts here is there once, in this case."""
    if b"\\u" in body:
        return None
    lower = body.lower()
    if any(lower.count(name) != body.count(name) or body.count(name) > 1 for name in _NAMES):
        return None
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return request if isinstance(request, dict) else {}


def _rewritten(body: bytes) -> bytes | None:
    """The request as any reader reads it: our members are there once, in this case, and say what any of theirs said."""
    request = lenient(body, _EXACT)
    if not isinstance(request, _Members):
        return None
    streams = [value for name, value in request.pairs if name.lower() == _STREAM]
    if all(value in _NOT for value in streams):
        return None
    told = [value for name, value in request.pairs if name.lower() == _OPTIONS and isinstance(value, dict)]
    options = {name: value for one in told for name, value in one.items() if name.lower() != "include_usage"}
    rest = {name: value for name, value in request.items() if name.lower() not in (_STREAM, _OPTIONS)}
    exact = {_STREAM: True, _OPTIONS: {**options, "include_usage": True}, **rest}
    return json.dumps(exact, separators=(",", ":")).encode()


class _Members(dict[str, Any]):
    """An object that remembers members of the same name."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


_EXACT = json.JSONDecoder(strict=False, object_pairs_hook=_Members)


class UsageChunkFilter:
    """Passes an event stream but for its usage chunks. What is not a whole event waits, up to `EVENT_BYTES_MAX`."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """What can go on to the client."""
        text, passed, start = self._rest + chunk, [], 0
        for end in _EVENT_END.finditer(text):
            passed.append(_for_the_client(text[start : end.end()]))
            start = end.end()
        self._rest = text[start:]
        if len(self._rest) > EVENT_BYTES_MAX:
            passed.append(self._rest)
            self._rest = b""
        return b"".join(passed)

    def finish(self) -> bytes:
        """What is left at the end of the stream."""
        rest, self._rest = self._rest, b""
        return _for_the_client(rest)


def _for_the_client(event: bytes) -> bytes:
    """An event; of a usage chunk what else it carries (citations, say), nothing where that is nothing."""
    if b'"usage"' not in event:
        return event
    lines = (line.partition(b":") for line in event.splitlines())
    data = b"\n".join(value.removeprefix(b" ") for name, _, value in lines if name == b"data")
    try:
        document = document_of(data)
    except ValueError:
        return event
    if not isinstance(document, dict) or document.get("choices") != [] or not isinstance(document.get("usage"), dict):
        return event
    if document.keys() <= _CHUNK:
        return b""
    return b"data: " + json.dumps({**document, "usage": None}, separators=(",", ":")).encode() + b"\n\n"
