"""What to look for in the responses of a route: rows of meter/usage/profiles.py, or a key of the owner's own.

A shape is immutable and built once per route; it reads what a scanner found and says what was used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum

from meter.usage.json_scanner import JsonScanner
from meter.usage.key_tree import EACH, SUM, KeyTree, Path, Wanted, parse_path
from meter.usage.number import Number
from meter.usage.profiles import (
    BACKGROUND_PATHS,
    FAILURE_PATHS,
    FAILURE_TYPES,
    FILE_PATHS,
    ID_PATHS,
    MODEL_PATHS,
    PROFILES,
    RESULTS,
    TYPE_PATH,
    WORK_PATHS,
    Counter,
    Profile,
)
from meter.usage.usage import TOKENS, Usage
from meter.usage.work import Work

_ID_PATHS = tuple(map(parse_path, ID_PATHS))
_PLUS = re.compile(r"\+(?!\])")


class Format(StrEnum):
    """Where in a response the usage is looked for."""

    KEY = "key"
    """One number at a configured dotted key: `total_token`, `usage.total_tokens`; or several, with `+` between."""
    OPENAI_CHAT = "openai-chat"
    OPENAI_RESPONSES = "openai-responses"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    BEDROCK = "bedrock"
    COHERE = "cohere"
    OLLAMA = "ollama"
    LLAMA_CPP = "llama-cpp"
    TGI = "tgi"
    AUTO = "auto"
    """Any of the above, decided by what the response holds."""


_ROWS: Mapping[Format, tuple[str, ...]] = {
    Format.OPENAI_RESPONSES: ("input-output",),
    Format.ANTHROPIC: ("anthropic-iterations", "input-output"),
    Format.BEDROCK: ("bedrock", "bedrock-invoke", "anthropic-iterations", "input-output", "titan", "llama"),
    Format.COHERE: ("cohere", "cohere-tokens"),
}
"""Formats that are not just the row of their name."""


_Row = tuple[Profile, list[tuple[Counter, Path]]]
_ROWS_OF_MAX = 1024


class Shape:
    """The paths that a scanner has to look for, and what the numbers there mean."""

    __slots__ = (
        *("_counters", "_failures", "_key", "_models", "_rows", "_type"),
        *("_rows_of", "header_names", "headers", "needles", "tree"),
    )

    def __init__(self, profiles: Iterable[Profile], key: str | None = None, *, work: bool = False) -> None:
        """`work`: also what tells of work in the background. Raises ValueError for an empty key or part of a key."""
        self._key = () if key is None else tuple(map(parse_path, _PLUS.split(key)))
        self._rows = tuple(profiles)
        self._rows_of: dict[tuple[Path, ...], _Row | None] = {}
        """What `_row_of` answered: those who answer do so in few ways."""
        self._counters: dict[Path, list[tuple[int, Counter]]] = {}  # path -> rows that count by it, and how
        for number, row in enumerate(self._rows):
            for path, counter in _paths_of(row).items():
                self._counters.setdefault(path, []).append((number, counter))
        self._models = tuple(map(parse_path, MODEL_PATHS))
        self._failures = tuple(map(parse_path, FAILURE_PATHS))
        self._type = parse_path(TYPE_PATH)
        self.headers = {name: row for row in self._rows for name in row.headers}
        """Response headers that count, in lower case."""
        self.header_names = {name.encode("latin-1"): name for name in self.headers}
        wanted = dict.fromkeys((*self._models, self._type), Wanted.TEXT)
        wanted |= dict.fromkeys(self._failures, Wanted.PRESENCE)
        if work:
            wanted |= dict.fromkeys(map(parse_path, WORK_PATHS), Wanted.TEXT)
            wanted |= dict.fromkeys(map(parse_path, BACKGROUND_PATHS), Wanted.PRESENCE)
        for path in (*self._key, *self._counters):
            wanted[path] = wanted.get(path, Wanted.NOTHING) | Wanted.NUMBER
        bases = [_join(base) for row in self._rows for base in row.bases]
        alone = [path for path in self._key if len(self._key) == 1 and path not in self._counters]
        self.tree = KeyTree(wanted, [*bases, *map(_around, self._key)], alone)
        self.needles = _needles(
            [*(path for path in wanted if wanted[path] is not Wanted.TEXT), *((name,) for name in FAILURE_TYPES)]
        )

    def failed(self, scanner: JsonScanner) -> bool:
        """Whether the response says that it is none, although its status does not."""
        if any(path in scanner.present for path in self._failures):
            return True
        return not FAILURE_TYPES.isdisjoint(scanner.texts.get(self._type, ()))

    def work(self, scanner: JsonScanner) -> Work:
        """What was told of work in the background; of a shape that looks for it."""
        told = {path[-1]: texts for path, texts in scanner.texts.items()}
        status = (told.get("processing_status") or told.get("status") or [""])[-1]
        file_id = next((told[name][-1] for name in FILE_PATHS if told.get(name)), "")
        return Work(
            ids=tuple(_last_segment(text) for path in _ID_PATHS for text in scanner.texts.get(path, ())),
            kinds=frozenset((*told.get("object", ()), *told.get("type", ()))),
            status=status.lower(),
            background=any(parse_path(path) in scanner.present for path in BACKGROUND_PATHS),
            output_file_id=_last_segment(file_id),
        )

    def read(self, scanner: JsonScanner, counts: Mapping[str, Number] | None = None) -> Usage | None:
        """The usage that was told so far, None where none was. `counts`: what headers told, by their names."""
        model = next((scanner.texts[path][0] for path in self._models if path in scanner.texts), None)
        found = self._from_rows(scanner, model, counts or {})
        keyed = [scanner.numbers[path] for path in self._key if path in scanner.numbers]
        if keyed:
            total = sum(keyed)
            if found is not None and found.total == total:
                return found  # a key that points at a provider's own total must not cost the quantities
            return Usage(profile=Format.KEY, total=total, model=model)
        return self._from_headers(counts, model) if found is None and counts else found

    def _from_rows(self, scanner: JsonScanner, model: str | None, counts: Mapping[str, Number]) -> Usage | None:
        """By the first row of which anything was told; its headers count beside, since TGI's body tells no prompt."""
        numbers = scanner.numbers
        paths = tuple(numbers)
        if paths not in self._rows_of:
            if len(self._rows_of) >= _ROWS_OF_MAX:
                self._rows_of.clear()
            self._rows_of[paths] = self._row_of(paths)
        row = self._rows_of[paths]
        if row is None:
            return None
        profile, counters = row
        told = [(counter, numbers[path]) for counter, path in counters]
        if counts:
            told += [(profile.headers[name], counts[name]) for name in profile.headers if name in counts]
        return _usage(profile.name, told, model)

    def _row_of(self, paths: tuple[Path, ...]) -> _Row | None:
        """The row that reads what stands at these paths, and by which of its counters each."""
        told: dict[int, list[tuple[Counter, Path]]] = {}
        for path in paths:
            for row, counter in self._counters.get(path, ()):
                told.setdefault(row, []).append((counter, path))
        if not told:
            return None
        parts = [row for row, counted in told.items() if not all(counter.is_total for counter, _ in counted)]
        first = min(parts or told)  # several rows know a total of the same name
        return self._rows[first], told[first]

    def _from_headers(self, counts: Mapping[str, Number], model: str | None) -> Usage | None:
        for row in self._rows:
            told = [(row.headers[name], counts[name]) for name in row.headers if name in counts]
            if told:
                return _usage(row.name, told, model)
        return None


def shape_of(fmt: Format, key: str | None = None) -> Shape:
    """The shape for a format. Raises ValueError if `key` is missing, malformed or unused."""
    if fmt is Format.AUTO:
        return Shape(PROFILES, key)
    if fmt is Format.KEY:
        if key is None:
            raise ValueError("the format 'key' needs a key path")
        return Shape((), key)
    if key is not None:
        raise ValueError(f"the format {fmt.value!r} takes no key path")
    names = _ROWS.get(fmt, (fmt.value,))
    return Shape([profile for profile in PROFILES if profile.name in names])


def shape_of_work(fmt: Format, key: str | None = None) -> Shape:
    """The shape of a format for what starts work in the background, or reads it."""
    names = _ROWS.get(fmt, (fmt.value,))
    rows = PROFILES if fmt is Format.AUTO else [profile for profile in PROFILES if profile.name in names]
    return Shape(rows, key, work=True)


def shape_of_results() -> Shape:
    """The shape of one line of a batch's results."""
    return Shape(RESULTS)


def _usage(name: str, told: list[tuple[Counter, Number]], model: str | None) -> Usage:
    """Counters as quantities that do not contain each other."""
    whole: dict[str, Number] = {}
    inner: dict[str, tuple[str, Number]] = {}
    total: Number = 0
    for counter, number in told:
        dimension, within = counter.dimension, counter.within
        if within:
            before = inner.get(dimension)
            if before is None or number > before[1]:
                inner[dimension] = (within, number)
        elif dimension == "total":
            total = max(total, number)
        elif dimension not in whole or number > whole[dimension]:
            whole[dimension] = number
    for dimension, (container, number) in inner.items():
        part = min(number, whole.get(container, 0))
        if part and dimension not in whole:
            whole[container] -= part
            whole[dimension] = part
    if "tool_input" in whole:
        whole["input"] = whole.get("input", 0) + whole.pop("tool_input")
    tokens: Number = 0
    others: Number = 0
    for dimension, number in whole.items():
        if dimension in TOKENS:
            tokens += number
        else:
            others += number
    quantities = {dimension: number for dimension, number in whole.items() if number}
    return Usage(profile=name, total=max(total, tokens) or others, quantities=quantities, model=model)


def _paths_of(profile: Profile) -> dict[Path, Counter]:
    return {
        (*_join(base), *parse_path(path)): counter
        for base in profile.bases
        for path, counter in profile.counters.items()
    }


def _last_segment(name: str) -> str:
    """The id in a name as Google has them: `batches/1`."""
    return name.rpartition("/")[2]


def _around(path: Path) -> Path:
    """The object that a key belongs to: the one that holds it, or the array that it is in."""
    inside = next((at for at, part in enumerate(path) if part in (EACH, SUM)), len(path))
    return path[: inside - 1]


def _join(base: str) -> Path:
    return parse_path(base) if base else ()


_PARTS_OF_NAMES = ("billed_units", "timings", "oken", "eval_count")
"""What many wanted names have in common, or an object's that holds nothing but what is wanted."""


def _needles(paths: Iterable[Path]) -> tuple[bytes, ...]:
    """Some letters of each path, as few different ones as are needed: a line without any of them tells nothing."""
    found = {next((part for part in _PARTS_OF_NAMES if any(part in name for name in path)), path[-1]) for path in paths}
    return tuple(sorted((name.encode() for name in found), key=len))
