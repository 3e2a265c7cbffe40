"""Where each API puts its usage, and how the documents of one response add up to one `Usage`.

A shape is immutable and built once per route; it reads what a scanner found in one document (a JSON
body, or one event of a stream) and returns the usage of the response so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from meter.usage.json_scanner import JsonScanner
from meter.usage.key_tree import KeyTree, Path, parse_path
from meter.usage.number import Number
from meter.usage.sse_splitter import EVENT_BYTES_MAX
from meter.usage.usage import Format, Usage

WHOLE_RESPONSE_EVENT_BYTES_MAX = 1024 * 1024
"""The Responses API repeats the whole response, instructions and tools included, in the one event
that has the usage."""


class Shape(Protocol):
    """How one API reports usage."""

    @property
    def tree(self) -> KeyTree:
        """The paths a scanner has to look for."""

    @property
    def event_bytes_max(self) -> int:
        """How big an event of this API may be before it is skipped."""

    def read(self, scanner: JsonScanner, seen: Usage | None) -> Usage | None:
        """The usage after one more document; `seen` is the usage after those before it."""


_Fields = Mapping[str, Path]
"""Names of `Usage` to paths inside one usage object."""

_CHAT_FIELDS: _Fields = {
    "total": ("total_tokens",),
    "input_tokens": ("prompt_tokens",),
    "output_tokens": ("completion_tokens",),
    "cache_read_tokens": ("prompt_tokens_details", "cached_tokens"),
    "cache_write_tokens": ("prompt_tokens_details", "cache_write_tokens"),
}
_RESPONSES_FIELDS: _Fields = {
    "total": ("total_tokens",),
    "input_tokens": ("input_tokens",),
    "output_tokens": ("output_tokens",),
    "cache_read_tokens": ("input_tokens_details", "cached_tokens"),
    "cache_write_tokens": ("input_tokens_details", "cache_write_tokens"),
}
_ANTHROPIC_FIELDS: _Fields = {
    "input_tokens": ("input_tokens",),
    "output_tokens": ("output_tokens",),
    "cache_read_tokens": ("cache_read_input_tokens",),
    "cache_write_tokens": ("cache_creation_input_tokens",),
}


class KeyShape:
    """One number at a dotted key. Raises ValueError for an empty key or part of a key."""

    __slots__ = ("event_bytes_max", "path", "tree")

    def __init__(self, key: str) -> None:
        self.path = parse_path(key)
        self.tree = KeyTree([self.path])
        self.event_bytes_max = EVENT_BYTES_MAX

    def read(self, scanner: JsonScanner, seen: Usage | None) -> Usage | None:
        """The last document that has the key counts."""
        total = scanner.values.get(self.path)
        return seen if total is None else Usage(format=Format.KEY, total=total)


class OpenAiShape:
    """A usage object with a total; the last document that has one counts."""

    __slots__ = ("_fields", "_format", "_prefixes", "event_bytes_max", "tree")

    def __init__(self, fmt: Format, fields: _Fields, *prefixes: Path, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._format = fmt
        self._fields = fields
        self._prefixes = prefixes
        self.tree = _tree(fields, *prefixes)
        self.event_bytes_max = event_bytes_max

    def read(self, scanner: JsonScanner, seen: Usage | None) -> Usage | None:
        for prefix in self._prefixes:
            found = _found(scanner, prefix, self._fields)
            total = found.pop("total", None)
            if total is None:
                total = _sum(found.get("input_tokens"), found.get("output_tokens"))
            if total is not None:
                return Usage(format=self._format, total=total, **found)
        return seen


class AnthropicShape:
    """Usage in parts: later documents overwrite the fields they have, and never add to them."""

    __slots__ = ("_prefixes", "event_bytes_max", "tree")

    def __init__(self) -> None:
        self._prefixes: tuple[Path, ...] = (("message", "usage"), ("usage",))
        self.tree = _tree(_ANTHROPIC_FIELDS, *self._prefixes)
        self.event_bytes_max = EVENT_BYTES_MAX

    def read(self, scanner: JsonScanner, seen: Usage | None) -> Usage | None:
        found: dict[str, Number] = {}
        for prefix in self._prefixes:
            found |= _found(scanner, prefix, _ANTHROPIC_FIELDS)
        if not found:
            return seen
        if seen is None or seen.format is not Format.ANTHROPIC:
            seen = Usage(format=Format.ANTHROPIC, total=0)
        input_tokens = found.get("input_tokens", seen.input_tokens)
        output_tokens = found.get("output_tokens", seen.output_tokens)
        cache_read_tokens = found.get("cache_read_tokens", seen.cache_read_tokens)
        cache_write_tokens = found.get("cache_write_tokens", seen.cache_write_tokens)
        total = _sum(input_tokens, output_tokens, cache_read_tokens, cache_write_tokens)
        return Usage(
            format=Format.ANTHROPIC,
            total=0 if total is None else total,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cache_read_tokens=cache_read_tokens,
            cache_write_tokens=cache_write_tokens,
        )


class AutoShape:
    """Any of the shapes. A configured key decides the total, unless it only repeats an API's own."""

    __slots__ = ("_anthropic", "_chat", "_key", "_responses", "event_bytes_max", "tree")

    def __init__(self, key: str | None = None) -> None:
        self._key = None if key is None else KeyShape(key)
        self._chat = _chat_shape()
        self._responses = _responses_shape()
        self._anthropic = AnthropicShape()
        shapes: list[Shape | None] = [self._chat, self._responses, self._anthropic, self._key]
        self.tree = KeyTree(path for shape in shapes if shape for path in shape.tree.root.below)
        self.event_bytes_max = WHOLE_RESPONSE_EVENT_BYTES_MAX

    def read(self, scanner: JsonScanner, seen: Usage | None) -> Usage | None:
        if self._key is None:
            return self._read_api(scanner, seen)
        keyed = self._key.read(scanner, None)
        if keyed is not None:
            api = self._read_api(scanner, None)
            # A key that points at an API's own total must not cost the other fields.
            return api if api is not None and api.total == keyed.total else keyed
        if seen is not None and seen.format is Format.KEY:
            return seen
        return self._read_api(scanner, seen)

    def _read_api(self, scanner: JsonScanner, seen: Usage | None) -> Usage | None:
        if any(path in scanner.values for path in _ONLY_IN_CHAT):
            return self._chat.read(scanner, seen)
        if any(path in scanner.values for path in _NEVER_IN_ANTHROPIC):
            return self._responses.read(scanner, seen)
        return self._anthropic.read(scanner, seen)


_ONLY_IN_CHAT: tuple[Path, ...] = (("usage", "prompt_tokens"), ("usage", "completion_tokens"))
_NEVER_IN_ANTHROPIC: tuple[Path, ...] = (
    ("usage", "total_tokens"),
    ("response", "usage", "total_tokens"),
    ("response", "usage", "input_tokens"),
    ("response", "usage", "output_tokens"),
)


def shape_of(fmt: Format, key: str | None = None) -> Shape:
    """The shape for a format. Raises ValueError if `key` is missing, malformed or unused."""
    if fmt is Format.AUTO:
        return AutoShape(key)
    if fmt is Format.KEY:
        if key is None:
            raise ValueError("the format 'key' needs a key path")
        return KeyShape(key)
    if key is not None:
        raise ValueError(f"the format {fmt.value!r} takes no key path")
    if fmt is Format.ANTHROPIC:
        return AnthropicShape()
    return _chat_shape() if fmt is Format.OPENAI_CHAT else _responses_shape()


def _chat_shape() -> OpenAiShape:
    return OpenAiShape(Format.OPENAI_CHAT, _CHAT_FIELDS, ("usage",))


def _responses_shape() -> OpenAiShape:
    return OpenAiShape(
        Format.OPENAI_RESPONSES,
        _RESPONSES_FIELDS,
        ("response", "usage"),
        ("usage",),
        event_bytes_max=WHOLE_RESPONSE_EVENT_BYTES_MAX,
    )


def _found(scanner: JsonScanner, prefix: Path, fields: _Fields) -> dict[str, Number]:
    """The numbers of the usage object at `prefix`, by name; none while the object is open."""
    if scanner.is_open(prefix):
        return {}
    values = ((name, scanner.values.get((*prefix, *path))) for name, path in fields.items())
    return {name: value for name, value in values if value is not None}


def _tree(fields: _Fields, *prefixes: Path) -> KeyTree:
    return KeyTree((*prefix, *path) for prefix in prefixes for path in fields.values())


def _sum(*parts: Number | None) -> Number | None:
    """The sum of the parts that are known, None if none is."""
    known = [part for part in parts if part is not None]
    return sum(known) if known else None
