"""Usage from OpenAI chat completions that stream, whose clients did not ask for it.

The request gets `stream_options.include_usage`; the extra chunk that this brings (`choices: []` with the usage) is
taken out of the response again.
"""

from __future__ import annotations

import json
import re

import orjson

REQUEST_BYTES_MAX = 1024 * 1024
"""A larger request is forwarded as it is."""
EVENT_BYTES_MAX = 64 * 1024
"""An event that is larger, or not whole yet, is no usage chunk."""

_PATH_END = "/completions"
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_OPENING = re.compile(rb"\s*\{")


def may_inject(method: str, path: str, content_type: bytes | None, content_encoding: bytes | None) -> bool:
    """Whether a request can be one that `with_usage` changes."""
    is_json = (content_type or b"").partition(b";")[0].strip().lower() == b"application/json"
    return method == "POST" and path.endswith(_PATH_END) and is_json and content_encoding is None


def with_usage(body: bytes) -> bytes | None:
    """The request that asks for the usage; None when it does so already, or streams nothing."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(request, dict) or request.get("stream") is not True:
        return None
    options = request.get("stream_options")
    if options is None and "stream_options" not in request:
        # Put in front, so that every other byte stays as the client wrote it.
        return _OPENING.sub(b'{"stream_options":{"include_usage":true},', body, count=1)
    if options is not None and not isinstance(options, dict):
        return None
    if options is not None and options.get("include_usage") is True:
        return None
    exact = json.loads(body)
    exact["stream_options"] = {**(options or {}), "include_usage": True}
    return json.dumps(exact, separators=(",", ":")).encode()


class UsageChunkFilter:
    """Passes an event stream but for its usage chunks. What is not a whole event waits, up to `EVENT_BYTES_MAX`."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """What can go on to the client."""
        text, passed, start = self._rest + chunk, [], 0
        for end in _EVENT_END.finditer(text):
            event = text[start : end.end()]
            if not _is_usage_chunk(event):
                passed.append(event)
            start = end.end()
        self._rest = text[start:]
        if len(self._rest) > EVENT_BYTES_MAX:
            passed.append(self._rest)
            self._rest = b""
        return b"".join(passed)

    def finish(self) -> bytes:
        """What is left at the end of the stream."""
        rest, self._rest = self._rest, b""
        return b"" if _is_usage_chunk(rest) else rest


def _is_usage_chunk(event: bytes) -> bool:
    if b'"usage"' not in event:
        return False
    lines = (line.partition(b":") for line in event.splitlines())
    data = b"\n".join(value.removeprefix(b" ") for name, _, value in lines if name == b"data")
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return isinstance(document, dict) and document.get("choices") == [] and isinstance(document.get("usage"), dict)
