"""The Lua programs: found, composed from the files of `lua/`, hashed, and mapped back to those files on errors.

Knows nothing of Redis connections. A program is plain concatenation, so a line of it belongs to one line of a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from pathlib import Path

from meter.engine.declarations import DECLARED
from meter.errors import ScriptError
from meter.keys import schema_of

_LEVELS = (
    *("calendar", "level", "breaker", "budget_alert", "counting"),
    *("level_writing", "bucket", "judging", "editing", "plan_rules"),
)
"""What rules of levels need: made where the partition has some, or the batch may make the first."""
_MAKE_RULES = "wanted.configure or wanted.restore or wanted.calendars or wanted.plan_rules"
# Each file may use what the files before it define.
_STATE = (
    *(
        "agenda",
        "order",
        "burning",
        "stranger",
        "top_up",
        "alert",
        "outbox",
        "key_terms",
        "hold",
        "ending",
        "settle",
        "pool",
        "part",
        "part_end",
    ),
    "write",
    "admission",
)
_PLAIN = {
    "wanted.deduct": ("deduct",),
    "wanted.reserve": ("reserve",),
    "wanted.commit or wanted.release": ("hold", "commit", "release"),
}
"""The files of lua/plain that stand in a block of their own, and when it is entered."""
_TWINS = {"deduct_usage": "deduct", "reserve_usage": "reserve", "commit_usage": "commit"}
"""Operations that price a usage, and the one that does the rest for them."""
_PRICED = (*_TWINS, "quote")
"""What needs them:"""
_OF_PRICES = ("state/rates.lua", "state/cost.lua", "state/price.lua")
_SENTINEL = "state/sentinel.lua"
_BESIDE = {"rotate": _SENTINEL, "state": _SENTINEL, "refund": "state/homeless.lua"}
"""What single operations need."""

_ERROR_LINE = re.compile(r"(?:user_script|@?f_[0-9a-f]{40}|string \"[^\"]*\"\]?):(\d+):")


@dataclass(frozen=True, slots=True)
class Program:
    """One Lua program. `sha` is what EVALSHA wants; `starts` are (first line, file) in order."""

    name: str
    source: str
    sha: str
    starts: tuple[tuple[int, str], ...]

    def error(self, message: str) -> ScriptError:
        """The error of a failed run, with the line of the program named as file and line of `lua/`."""
        found = _ERROR_LINE.search(message)
        if found is None:
            return ScriptError(f"{self.name}: {message}")
        line = int(found.group(1))
        first, file = max((start for start in self.starts if start[0] <= line), default=(1, self.name))
        return ScriptError(f"lua/{file}:{line - first + 1}: {message}")


def lua_folder() -> Path:
    """The folder of the Lua files: inside the installed wheel, or beside the package in a checkout."""
    packaged = files("meter") / "_lua"
    if packaged.is_dir():
        return Path(str(packaged))
    return Path(__file__).resolve().parents[2] / "lua"


def apply_program(folder: Path | None = None, *, plain: bool = True, partitions: int = 1) -> Program:
    """The program that applies a batch of operations (lua/apply.lua), of a deployment of so many partitions. What a
    batch does not want it does not make: each function costs a call some of its time. Without `plain` it has no fast
    path; it answers and writes the same.
    """
    folder = folder or lua_folder()
    operations = sorted(path.stem for path in (folder / "operations").glob("*.lua"))
    parts = _Parts(folder)
    parts.say(f"local SCHEMA_OF_MOVED = '{schema_of(partitions, is_moved=True)}' ")
    parts.add("prelude.lua", "state/told.lua", "state/history.lua")
    with parts.when("is_refused"):
        parts.add(_SENTINEL, "state/refusal.lua")
    parts.say("".join(_subject_of(name) for name in operations))
    parts.say("".join(f"if wanted.{name} then wanted.{twin} = true end " for name, twin in _TWINS.items()))
    with parts.when(f"is_ruled or {_MAKE_RULES} or {_wanted(_PRICED)}"):
        parts.add("state/path.lua")
    parts.add("batch.lua")
    with parts.when("ARGV[api_keys.from]"):
        parts.add("state/api_keys.lua")
    parts.add("state/writing.lua")
    if plain:
        with parts.when("ARGV[3] ~= 'trial'"):
            _add_plain(parts)
    parts.add("state/grant.lua", "state/restriction.lua", "state/purpose.lua", "state/account.lua")
    with parts.when(f"is_ruled or {_MAKE_RULES}"):
        parts.add(*(f"state/{name}.lua" for name in _LEVELS))
    parts.add(*(f"state/{name}.lua" for name in _STATE))
    for name in (one for one in operations if one not in _PRICED):
        with parts.when(f"wanted.{name}"):
            parts.add(*_files_of(name))
    with parts.when(_wanted(_PRICED)):
        parts.add(*_OF_PRICES)
        for name in _PRICED:
            with parts.when(f"wanted.{name}"):
                parts.add(*_files_of(name))
    parts.add("apply.lua")
    return parts.program("apply")


def open_program(folder: Path | None = None) -> Program:
    """The program that makes or checks a partition (lua/open.lua)."""
    parts = _Parts(folder or lua_folder())
    parts.add(_SENTINEL, "state/told.lua", "open.lua")
    return parts.program("open")


def _add_plain(parts: _Parts) -> None:
    parts.add("plain/account.lua")
    for condition, names in _PLAIN.items():
        with parts.when(condition):
            parts.add(*(f"plain/{name}.lua" for name in names))
    with parts.when(_wanted(tuple(_TWINS))):
        parts.add(*_OF_PRICES, "plain/usage.lua")
    parts.add("plain/run.lua")


def _wanted(names: Sequence[str]) -> str:
    return " or ".join(f"wanted.{name}" for name in names)


def _files_of(operation: str) -> tuple[str, ...]:
    own = f"operations/{operation}.lua"
    return (_BESIDE[operation], own) if operation in _BESIDE else (own,)


def _subject_of(operation: str) -> str:
    """What the declaration of an operation says of its subject. Raises `KeyError` where there is none."""
    subject = DECLARED[operation].subject.value
    return f"if wanted.{operation} then subjects.{operation} = '{subject}' end " if subject else ""


class _Parts:
    """Files put one after the other. What we add to them stands in front of the first line of a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: list[str] = []
        self._starts: list[tuple[int, str]] = []
        self._said = ""

    def say(self, code: str) -> None:
        """Code of our own, in front of the next file."""
        self._said += code

    def add(self, *files: str) -> None:
        """Files of the folder."""
        for file in files:
            self._starts.append((len(self._lines) + 1, file))
            first, *rest = (self._folder / file).read_text(encoding="utf-8").splitlines()
            self._lines += [self._said + first, *rest]
            self._said = ""

    @contextmanager
    def when(self, condition: str) -> Iterator[None]:
        """What is added inside stands in a block of its own, which is entered on that condition."""
        self.say(f"if {condition} then ")
        yield
        self._lines.append("end")

    def program(self, name: str) -> Program:
        """All of it as a program."""
        source = "\n".join(self._lines) + "\n"
        digest = sha1(source.encode(), usedforsecurity=False).hexdigest()
        return Program(name, source, digest, tuple(self._starts))
