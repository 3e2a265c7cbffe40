"""The Lua programs: found, composed from the files of `lua/`, hashed, and mapped back to those files on errors.

Knows nothing of Redis connections. A program is plain concatenation, so a line of it belongs to one line of a file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from pathlib import Path

from meter.engine.declarations import DECLARED
from meter.errors import ScriptError

_Part = tuple[str, tuple[str, ...]]
"""Files that stand in a block of their own, and the condition that enters it; "" for no block."""

# Each file may use what the files before it define.
_STATE = ("grant", "account", "agenda", "order", "alert", "outbox", "hold", "ending", "settle", "write")
_SENTINEL = "state/sentinel.lua"

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


def apply_program(folder: Path | None = None) -> Program:
    """The program that applies a batch of operations (lua/apply.lua). What a batch does not want it does not make: each
    function costs a call some of its time.
    """
    folder = folder or lua_folder()
    operations = sorted(path.stem for path in (folder / "operations").glob("*.lua"))
    return _compose(
        "apply",
        folder,
        [
            ("", ("prelude.lua", "state/history.lua")),
            ("is_refused", (_SENTINEL, "state/refusal.lua")),
            ("", tuple(f"state/{name}.lua" for name in _STATE)),
            *((f"wanted.{name}", _files_of(name)) for name in operations),
            ("", ("apply.lua",)),
        ],
    )


def open_program(folder: Path | None = None) -> Program:
    """The program that makes or checks a partition (lua/open.lua)."""
    return _compose("open", folder or lua_folder(), [("", (_SENTINEL, "open.lua"))])


def _files_of(operation: str) -> tuple[str, ...]:
    own = f"operations/{operation}.lua"
    return (_SENTINEL, own) if operation in ("rotate", "state") else (own,)


def _subject_of(condition: str) -> str:
    """What the declaration of a wanted operation says of its subject. Raises `KeyError` where there is none."""
    if not condition.startswith("wanted."):
        return ""
    name = condition.removeprefix("wanted.")
    subject = DECLARED[name].subject.value
    return f"subjects.{name} = '{subject}' " if subject else ""


def _compose(name: str, folder: Path, parts: Sequence[_Part]) -> Program:
    lines: list[str] = []
    starts: list[tuple[int, str]] = []
    for condition, members in parts:
        before = f"if {condition} then {_subject_of(condition)}" if condition else ""
        for file in members:
            starts.append((len(lines) + 1, file))
            first, *rest = (folder / file).read_text(encoding="utf-8").splitlines()
            lines += [before + first, *rest]
            before = ""
        if condition:
            lines.append("end")
    source = "\n".join(lines) + "\n"
    return Program(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest(), tuple(starts))
