"""What was served without being decided, on disk until it is charged: one line for each request.

Each process writes a file of its own and holds a lock on it; a file that nobody holds is of a process that died, and
whoever starts next takes it over. A line is written before its request is served, and given to the disk within a second
or so: a process that is killed loses none, a machine that loses its power may lose the last ones.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson

from meter.errors import ConfigError
from meter.log import logger

SUFFIX = ".ndjson"
_CHUNK_BYTES = 65536
"""Some hundred lines: more than are charged at once."""


_log = logger("meter.gateway")


class Served(NamedTuple):
    """A request that was served. `key` makes the charge for it be done once; `amount` are units."""

    key: str
    user_id: str
    amount: int
    request_id: str
    at_ms: int


class UnmeteredFile:
    """A locked file of lines, and how far from its front they are charged, which a small file beside it says."""

    def __init__(self, path: Path, file: int) -> None:
        """`file` is open for reading and appending, and locked."""
        self._path = path
        self._file = file
        self._progress = path.with_suffix(".charged")
        self._read_to = self._taken_to = self._charged_to()

    @classmethod
    def new(cls, folder: Path) -> Self:
        """A file of this process's own. Raises `ConfigError` where the folder cannot be written to."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            while True:
                path = folder / f"{secrets.token_hex(6)}{SUFFIX}"
                found = cls._locked(path, os.O_CREAT | os.O_EXCL)
                if found is not None and path.exists():
                    return found  # else another one that starts took it for left behind
        except OSError as error:
            raise ConfigError(f"METER_FAIL_JOURNAL={folder}: {error.strerror or error}") from None

    @classmethod
    def left_behind(cls, folder: Path) -> Iterator[Self]:
        """The files of processes that are no more."""
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            with suppress(FileNotFoundError):
                found = cls._locked(path, 0)
                if found is not None:
                    yield found

    def add(self, served: Served) -> int:
        """Writes a line; where it begins. Raises `OSError`: then nothing was written that counts."""
        start = os.fstat(self._file).st_size
        self._append(orjson.dumps(list(served)), start)
        return start

    def take_back(self, served: Served) -> None:
        """Says of a line that its request was not served after all. Raises `OSError`."""
        self._append(orjson.dumps([served.key]), os.fstat(self._file).st_size)

    def save(self) -> None:
        """Gives what was written to the disk; blocks."""
        os.fdatasync(self._file)

    def next(self, limit: int) -> Sequence[Served]:
        """The next lines that are not charged yet. A last line that is cut off was never served."""
        text = os.pread(self._file, _CHUNK_BYTES, self._read_to)
        size = os.fstat(self._file).st_size
        is_all = self._read_to + len(text) >= size
        lines = text[: text.rfind(b"\n") + 1].splitlines()
        if not is_all:
            lines.pop()  # what takes it back may follow
        found = [_read(line) for line in lines[: limit + 1]]
        if len(found) > limit and len(found[limit]) != 1:
            found.pop()
        is_all = is_all and len(found) == len(lines)
        self._taken_to = size if is_all else self._read_to + sum(len(line) + 1 for line in lines[: len(found)])
        taken_back = {line[0] for line in found if len(line) == 1}
        return [Served(*line) for line in found if len(line) == len(Served._fields) and line[0] not in taken_back]

    @property
    def is_done(self) -> bool:
        """Whether all its lines are charged."""
        return self._read_to >= os.fstat(self._file).st_size

    def charged(self) -> None:
        """What `next` gave is charged: it is not given again, after a restart neither."""
        self._read_to = self._taken_to
        if self.is_done:
            self._note(0)
            os.ftruncate(self._file, 0)
            self._read_to = 0
        else:
            self._note(self._read_to)

    def close(self) -> None:
        """Lets it go; one without lines is removed."""
        if self.is_done:
            self._path.unlink(missing_ok=True)
            self._progress.unlink(missing_ok=True)
        os.close(self._file)

    @classmethod
    def _locked(cls, path: Path, flags: int) -> Self | None:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        return cls(path, file)

    def _append(self, line: bytes, start: int) -> None:
        text = line + b"\n"
        try:
            if os.write(self._file, text) != len(text):
                raise OSError("the disk is full")
        except OSError:
            os.ftruncate(self._file, start)
            raise

    def _charged_to(self) -> int:
        try:
            told = int(self._progress.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return 0
        return told if told <= os.fstat(self._file).st_size else 0

    def _note(self, place: int) -> None:
        new = self._progress.with_suffix(".new")
        new.write_text(str(place), encoding="ascii")
        new.replace(self._progress)


def _read(line: bytes) -> list[Any]:
    """The members of a line; none of one that no code of ours has written, which spoils no other."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        found = None
    is_ours = isinstance(found, list) and len(found) in (1, len(Served._fields))
    if not is_ours:
        _log.error("a line of what was served unmetered cannot be read", line=line[:200].decode(errors="replace"))
    return found if is_ours else []
