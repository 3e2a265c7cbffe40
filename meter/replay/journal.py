"""The journal of a replay: JSON lines of what was sent and what was answered.

One invariant: an event is in the file before the call that it announces leaves, so a call that is missing there never
happened. Each line goes to the operating system at once: it outlives the process, though not a power cut.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Self

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from meter.errors import MeterError
from meter.replay.record import Done, Event, Record, Run, Sent

LINE_BYTES_MAX = 65536


class JournalError(MeterError):
    """A journal cannot be read or written; the message names file and line."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid")

    run: Run | None = None
    sent: Sent | None = None
    done: Done | None = None


class Journal:
    """Appends the events of a run to a file, which may hold earlier runs; `with` begins the run and closes the file."""

    def __init__(self, path: Path, run: Run) -> None:
        self._path = path
        try:
            torn = path.is_file() and _ends_torn(path)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise JournalError(f"{path}: {error.strerror or error}") from None
        self._head = (b"\n" if torn else b"") + _json("run", run)

    def __enter__(self) -> Self:
        try:
            self._append(self._head)
        except JournalError:
            self._file.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, event: Event) -> None:
        """Appends an event. Raises `JournalError`, for example when the disk is full."""
        self._append(_json("sent" if isinstance(event, Sent) else "done", event))

    def _append(self, text: bytes) -> None:
        try:
            written = os.write(self._file.fileno(), text)
        except OSError as error:
            raise JournalError(f"{self._path}: {error.strerror or error}") from None
        if written != len(text):
            raise JournalError(f"{self._path}: the disk is full")


def read_journal(path: Path) -> tuple[Run, Record]:
    """The last run of a journal, and the record of all its runs. Raises `JournalError`."""
    run, record = None, Record()
    try:
        for number, line in _lines(path):
            run = line.run or run
            event = line.sent or line.done
            try:
                if event is not None:
                    record.apply(event)
            except KeyError:
                raise JournalError(f"{path}:{number}: answers a call that the journal does not have") from None
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror or error}") from None
    if run is None:
        raise JournalError(f"{path}: has no run in it")
    return run, record


def _lines(path: Path) -> Iterator[tuple[int, _Line]]:
    """The lines. One that was cut off, at the end of the file or of a run, is left out."""
    torn: int | None = None
    with path.open("rb") as file:
        for number, text in enumerate(iter(partial(file.readline, LINE_BYTES_MAX), b""), 1):
            try:
                line = _Line.model_validate_json(text)
            except ValidationError:
                if torn is not None or number == 1:
                    break
                torn = number
                continue
            if torn is not None and line.run is None:
                break
            torn = None
            yield number, line
        else:
            return
    raise JournalError(f"{path}:{torn or 1}: is not a line of a replay's journal")


def _ends_torn(path: Path) -> bool:
    """Whether the last line was cut off. Raises `JournalError` for a file that is something else."""
    if next(_lines(path), None) is None:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _json(name: str, value: Run | Event) -> bytes:
    return orjson.dumps({name: value}, default=str, option=orjson.OPT_APPEND_NEWLINE)
