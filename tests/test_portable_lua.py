"""The portable subset (RELIABILITY section 4): the programs must do the same on fakeredis, Redis 7 and Valkey 8.

What is global and where a function ends is the Lua compiler's word (tests/lua_bytecode.py), not a guess.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meter.engine.programs import Program, apply_program, lua_folder, open_program
from tests.lua_bytecode import Function, compiled

GLOBALS = {
    "KEYS",
    "ARGV",
    "redis",
    "string",
    "table",
    "math",
    "unpack",
    "ipairs",
    "pairs",
    "next",
    "error",
}
COMMANDS = {
    *(
        "HGET",
        "HLEN",
        "HMGET",
        "HSET",
        "HDEL",
        "ZADD",
        "ZREM",
        "ZRANGEBYLEX",
        "ZRANGEBYSCORE",
        "XADD",
        "XTRIM",
        "XDEL",
        "XRANGE",
        "EXISTS",
        "UNLINK",
        "TIME",
    ),
}
FILE_LINES_MAX, FUNCTION_LINES_MAX, LINE_MAX = 120, 60, 130
LOCALS_MAX, UPVALUES_MAX, REGISTERS_MAX = 200, 60, 250

FILES = sorted(lua_folder().rglob("*.lua"))
PROGRAMS = {"apply": apply_program(), "open": open_program()}


@pytest.fixture(params=list(PROGRAMS.values()), ids=list(PROGRAMS))
def program(request: pytest.FixtureRequest) -> Program:
    found: Program = request.param
    return found


@pytest.fixture(params=FILES, ids=lambda path: str(path.relative_to(lua_folder())))
def file(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def code(path: Path) -> str:
    """The text of a file without its comments; line numbers stay."""
    return re.sub(r"--.*", "", path.read_text())


def place(program: Program, line: int) -> str:
    """The file and line of a line of the program."""
    return str(program.error(f"user_script:{line}: ")).split(": ")[0]


def test_no_program_sets_a_global(program: Program) -> None:
    written = [(place(program, line), name) for f in compiled(program.source).all() for line, name in f.writes]

    assert written == []


def test_only_portable_globals_are_read(program: Program) -> None:
    read = [(place(program, line), name) for f in compiled(program.source).all() for line, name in f.reads]

    assert [(where, name) for where, name in read if name not in GLOBALS] == []


def test_no_program_comes_near_a_limit_of_the_compiler(program: Program) -> None:
    main = compiled(program.source)

    assert main.locals < LOCALS_MAX * 0.9
    assert max(f.upvalues for f in main.all()) < UPVALUES_MAX * 0.9
    assert max(f.registers for f in main.all()) < REGISTERS_MAX


def test_functions_are_short(program: Program) -> None:
    sizes = {
        place(program, f.first_line): f.last_line - f.first_line + 1
        for f in compiled(program.source).all()
        if f.first_line
    }

    assert {where: size for where, size in sizes.items() if size > FUNCTION_LINES_MAX} == {}


def test_files_are_short(file: Path) -> None:
    lines = file.read_text().splitlines()

    assert len(lines) <= FILE_LINES_MAX
    assert max(map(len, lines)) <= LINE_MAX
    assert [line for line in lines if line != line.rstrip() or "\t" in line] == []


def test_a_file_starts_with_what_it_is_for(file: Path) -> None:
    text = file.read_text()

    assert re.match(r"-- [A-Z].*", text), "a shebang, or nothing said"
    assert text.endswith("\n") and not text.endswith("\n\n")


def test_redis_is_only_called_and_only_with_commands_of_the_floor(file: Path) -> None:
    text = code(file)

    assert set(re.findall(r"redis\.(\w+)", text)) <= {"call"}
    named = re.findall(r"redis\.call\(([^,)]*)", text) + re.findall(r"write_paged\(([^,)]*)", text)
    assert {name.strip("'") for name in named} - {"command"} <= COMMANDS


def test_the_clock_is_read_in_one_place() -> None:
    counts = {path.name: len(re.findall(r"'TIME'", code(path))) for path in FILES}

    assert {name: count for name, count in counts.items() if count} == {"prelude.lua": 1, "open.lua": 1}


def test_numbers_are_never_turned_into_text_by_lua_itself(file: Path) -> None:
    """`..` of a number goes over to exponents at 1e14; so only names of texts stand beside it."""
    text = code(file)

    assert "tostring" not in text
    numbers = (
        r"(?:amount|available|reserved|debt|spent|granted|expired|voided|scheduled|remaining|seq|now|charged|left|part)"
    )
    assert re.findall(rf"\.\. *(?:\w+\.)?{numbers}\b(?! *\()|\b(?:\w+\.)?{numbers} *\.\.", text) == []


def test_every_key_is_bound_once_and_none_is_built() -> None:
    apply = "".join(code(path) for path in FILES if path.name != "open.lua")

    assert sorted(re.findall(r"KEYS\[(\d+)\]", apply), key=int) == [str(n) for n in range(1, 17)]
    elsewhere = {path.name for path in FILES if path.parent != lua_folder() and "KEYS" in code(path)}
    assert elsewhere == {"sentinel.lua", "history.lua"}, "which take all of them, as they come"


@pytest.mark.parametrize(
    ("source", "reads", "writes"),
    [
        ("local x = 1", [], []),
        ("x = 1", [], ["x"]),
        ("local function f() y = os.time() end", ["os"], ["y"]),
        ("local t = {} t.x = 1 print(t)", ["print"], []),
        ("function operations.f() end", ["operations"], []),
        ("function f() end", [], ["f"]),
        ("for i = 1, 2 do local i = i z = i end", [], ["z"]),
    ],
)
def test_the_bytecode_reader_sees_globals(source: str, reads: list[str], writes: list[str]) -> None:
    functions: list[Function] = list(compiled(source).all())

    assert [name for f in functions for _, name in f.reads] == reads
    assert [name for f in functions for _, name in f.writes] == writes


def test_the_bytecode_reader_reports_syntax_errors() -> None:
    with pytest.raises(SyntaxError, match="expected"):
        compiled("local x = = 1")
