"""The Lua programs: found, composed from the files of `lua/`, hashed, and mapped back to those files on errors.

Knows nothing of Redis connections. A program is plain concatenation, so a line of it belongs to one line of a file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from pathlib import Path

from meter.engine.declarations import DECLARED
from meter.errors import ScriptError

# Each file may use what the files before it define.
_STATE = ("grant", "account", "agenda", "order", "alert", "outbox", "hold", "ending", "settle", "write")

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
    """The program that applies a batch of operations (lua/apply.lua)."""
    folder = folder or lua_folder()
    operations = sorted(path.name for path in (folder / "operations").glob("*.lua"))
    names = [
        "prelude.lua",
        *(f"state/{name}.lua" for name in _STATE),
        *(f"operations/{name}" for name in operations),
        "apply.lua",
    ]
    return _compose("apply", folder, names)


def open_program(folder: Path | None = None) -> Program:
    """The program that makes or checks a partition (lua/open.lua)."""
    return _compose("open", folder or lua_folder(), ["open.lua"])


def _text(folder: Path, file: str) -> list[str]:
    """The lines of a file. An operation's stand in a block of their own, so that a call makes only those it wants, and
    begin with what its declaration says of its subject. Raises `KeyError` for one that is not declared.
    """
    lines = (folder / file).read_text(encoding="utf-8").splitlines()
    if not file.startswith("operations/"):
        return lines
    name = Path(file).stem
    subject = DECLARED[name].subject.value
    put = f"subjects.{name} = '{subject}' " if subject else ""
    return [f"if wanted.{name} then {put}{lines[0]}", *lines[1:], "end"]


def _compose(name: str, folder: Path, names: list[str]) -> Program:
    lines: list[str] = []
    starts: list[tuple[int, str]] = []
    for file in names:
        starts.append((len(lines) + 1, file))
        lines += _text(folder, file)
    source = "\n".join(lines) + "\n"
    return Program(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest(), tuple(starts))
