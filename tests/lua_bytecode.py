"""What the Lua 5.1 compiler makes of a source: every function with its lines, its globals and its sizes.

The compiler knows what a regular expression has to guess: which names are global, and where a function ends.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

_GETGLOBAL, _SETGLOBAL = 5, 7
_HEADER = b"\x1bLua\x51\x00\x01\x04\x08\x04\x08\x00"  # 5.1, little-endian, 64 bit, numbers are doubles


@dataclass
class Function:
    """A compiled function. `reads` and `writes` are (line, name) of globals; line 0 to 0 is the whole file."""

    first_line: int
    last_line: int
    upvalues: int
    registers: int
    locals: int = 0
    reads: list[tuple[int, str]] = field(default_factory=list)
    writes: list[tuple[int, str]] = field(default_factory=list)
    inner: list[Function] = field(default_factory=list)

    def all(self) -> Iterator[Function]:
        """This function and every one inside it."""
        yield self
        for function in self.inner:
            yield from function.all()


def compiled(source: str) -> Function:
    """Compiles a source. Raises what the compiler raises for a syntax error."""
    runtime = importlib.import_module("lupa.lua51").LuaRuntime(encoding=None)
    load, dump = runtime.globals()[b"loadstring"], runtime.globals()[b"string"][b"dump"]
    chunk = load(source.encode())
    if isinstance(chunk, tuple):
        raise SyntaxError(chunk[1].decode())
    text: bytes = dump(chunk)
    assert text.startswith(_HEADER), "another build of Lua 5.1"
    return _Reader(text[len(_HEADER) :]).function()


def _at_once(variables: list[tuple[str, int, int]]) -> int:
    """How many of some variables (name, first, end) live at one instruction at most."""
    return max((sum(first <= at < end for _, first, end in variables) for _, at, _ in variables), default=0)


class _Reader:
    """Reads a dump, front to back."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0

    def function(self) -> Function:
        self._string()
        function = Function(self._int(), self._int(), self._byte(), 0)
        self._byte()
        self._byte()
        function.registers = self._byte()
        code = [self._int() for _ in range(self._int())]
        constants = [self._constant() for _ in range(self._int())]
        function.inner = [self.function() for _ in range(self._int())]
        lines = [self._int() for _ in range(self._int())]
        function.locals = _at_once([(self._string(), self._int(), self._int()) for _ in range(self._int())])
        for _ in range(self._int()):
            self._string()
        for instruction, line in zip(code, lines, strict=True):
            names = {_GETGLOBAL: function.reads, _SETGLOBAL: function.writes}.get(instruction & 0x3F)
            if names is not None:
                names.append((line, constants[(instruction >> 14) & 0x3FFFF]))
        return function

    def _constant(self) -> str:
        kind = self._byte()
        if kind == 4:
            return self._string()
        return repr(self._unpack({0: "", 1: "<?", 3: "<d"}[kind]))

    def _string(self) -> str:
        (size,) = self._unpack("<Q")
        self._at += size
        return self._text[self._at - size : self._at].rstrip(b"\0").decode()

    def _byte(self) -> int:
        return int(self._unpack("<B")[0])

    def _int(self) -> int:
        return int(self._unpack("<I")[0])

    def _unpack(self, form: str) -> tuple[int, ...]:
        values = struct.unpack_from(form, self._text, self._at)
        self._at += struct.calcsize(form)
        return values
