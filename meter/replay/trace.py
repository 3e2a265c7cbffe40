"""Reads a trace of production requests: CSV with TIMESTAMP, ContextTokens and GeneratedTokens, and maybe a model.

The format of the Azure LLM inference traces. Other columns are left alone. What cannot be read is a `TraceError` that
names the file, the line and what is wrong with it; nothing is guessed and nothing is skipped but blank lines.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TextIO

from meter.errors import MeterError

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
MODEL_COLUMN = "Model"
"""Of a trace that says which model each request was for."""
TOKENS_MAX = 1_000_000_000


class TraceError(MeterError):
    """A trace cannot be read; the message names file, line and what is wrong."""


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of a trace. `number` counts from 1; `offset_seconds` is the time since the first row."""

    number: int
    offset_seconds: float
    context_tokens: int
    generated_tokens: int
    model: str = ""

    @property
    def total_tokens(self) -> int:
        """What the request really used."""
        return self.context_tokens + self.generated_tokens


def read_trace(path: Path, rows_max: int | None = None, model_column: str | None = None) -> list[TraceRow]:
    """The rows of a trace in the order of the file, at most `rows_max`. Models are those of a column that must be
    there, or of the column `Model` where that is. Raises `TraceError`.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(islice(_rows(path, file, model_column), rows_max))
    except OSError as error:
        raise TraceError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from None
    if not rows:
        raise TraceError(f"{path}:1: has a header and no rows")
    return rows


def _rows(path: Path, file: TextIO, model_column: str | None) -> Iterator[TraceRow]:
    reader = csv.reader(file, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise TraceError(f"{path}: is empty; a header with {', '.join(COLUMNS)} was expected")
        places = _places(path, header, (*COLUMNS, model_column) if model_column else COLUMNS)
        model_at = _model_at(header, model_column or MODEL_COLUMN)
        start: datetime | None = None
        number = 0
        for fields in reader:
            if not fields:
                continue
            number += 1
            place = f"{path}:{reader.line_num}"
            if len(fields) != len(header):
                raise TraceError(f"{place}: has {len(fields)} fields, the header has {len(header)}")
            time = _time(place, fields[places[0]])
            start = start or time
            yield TraceRow(
                number,
                (time - start).total_seconds(),
                _tokens(place, COLUMNS[1], fields[places[1]]),
                _tokens(place, COLUMNS[2], fields[places[2]]),
                "" if model_at is None else fields[model_at].strip(),
            )
    except csv.Error as error:
        raise TraceError(f"{path}:{reader.line_num}: is not CSV: {error}") from None


def _model_at(header: Sequence[str], column: str) -> int | None:
    names = [name.strip() for name in header]
    return names.index(column) if names.count(column) == 1 else None


def _places(path: Path, header: Sequence[str], columns: Sequence[str]) -> list[int]:
    names = [name.strip() for name in header]
    missing = [name for name in columns if names.count(name) != 1]
    if missing:
        found = ", ".join(names)[:120]
        raise TraceError(f"{path}:1: needs one column {' and one '.join(missing)}; the header is: {found}")
    return [names.index(name) for name in columns]


def _time(place: str, text: str) -> datetime:
    try:  # more than six decimals are cut off, which is finer than any sleep
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        raise TraceError(f"{place}: TIMESTAMP is {text[:40]!r}, not a time like 2023-11-16 18:15:46.6805900") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _tokens(place: str, column: str, text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10 and int(digits) <= TOKENS_MAX):
        raise TraceError(f"{place}: {column} is {text[:40]!r}, not a whole number from 0 to {TOKENS_MAX}")
    return int(digits)
