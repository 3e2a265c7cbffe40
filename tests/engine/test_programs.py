"""The Lua programs: how they are put together, and how an error names the file and line it comes from."""

from __future__ import annotations

import re
import shutil
from hashlib import sha1
from pathlib import Path

import pytest

from meter.engine.declarations import DECLARED
from meter.engine.engine import Engine
from meter.engine.operations import balance
from meter.engine.programs import Program, apply_program, lua_folder, open_program
from meter.engine.redis import RedisGateway
from meter.errors import ScriptError
from tests.servers import Server

PROGRAM = Program("apply", "", "", ((1, "prelude.lua"), (11, "state/grant.lua"), (31, "apply.lua")))


IN_A_BLOCK = re.compile(r"^(?:(?:if|local) .*?)?(--.*)$")


def test_the_program_is_every_file_and_nothing_else() -> None:
    """Files that a batch does not need stand in blocks; one may stand in several."""
    program = apply_program()
    files = [file for _, file in program.starts]

    on_disk = {str(path.relative_to(lua_folder())) for path in lua_folder().rglob("*.lua")}
    assert set(files) == on_disk - {"open.lua"}
    assert {file for file in files if files.count(file) > 1} == {
        "state/sentinel.lua",
        *("state/rates.lua", "state/cost.lua", "state/price.lua"),
    }
    assert (files[0], files[-1]) == ("prelude.lua", "apply.lua")
    assert [file for _, file in open_program().starts] == ["state/sentinel.lua", "state/told.lua", "open.lua"]


def test_each_operation_stands_in_a_block_that_only_a_batch_which_wants_it_enters() -> None:
    lines = apply_program().source.split("\n")
    starts = {file: first for first, file in apply_program().starts if file.startswith("operations/")}
    [ahead] = [lines[first - 1] for first, file in apply_program().starts if file == "state/path.lua"]

    for file, first in starts.items():
        name = Path(file).stem
        opening = max(n for n in range(first) if lines[n].startswith("if wanted."))
        assert lines[opening].startswith(f"if wanted.{name} then --")
        subject = DECLARED[name].subject.value
        assert (f"if wanted.{name} then subjects.{name} = '{subject}' end" in ahead) == bool(subject)
        size = len((lua_folder() / file).read_text().splitlines())
        assert lines[first - 1 + size] == "end"


@pytest.mark.parametrize("program", [apply_program(), open_program()], ids=["apply", "open"])
def test_the_hash_is_the_one_that_redis_computes(server: Server, program: Program) -> None:
    assert program.sha == sha1(program.source.encode(), usedforsecurity=False).hexdigest()
    assert server.client.script_load(program.source) in (program.sha, program.sha.encode())


def test_each_start_is_the_first_line_of_its_file() -> None:
    program = apply_program()
    lines = program.source.split("\n")

    for first, file in program.starts:
        found = IN_A_BLOCK.match(lines[first - 1])
        assert found is not None and found[1] == (lua_folder() / file).read_text().split("\n")[0]


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (1, "prelude.lua:1"),
        (10, "prelude.lua:10"),
        (11, "state/grant.lua:1"),
        (30, "state/grant.lua:20"),
        (99, "apply.lua:69"),
    ],
)
@pytest.mark.parametrize(
    "message",
    [
        "user_script:{}: attempt to index a nil value script: abc, on @user_script:{}.",
        "ERR Error running script (call to f_0123456789012345678901234567890123456789): @user_script:?: "
        '[string "<python>"]:{}: attempt to index',
        "Error compiling script (new function): user_script:{}: '=' expected",
    ],
)
def test_an_error_names_the_file_and_its_line(message: str, line: int, place: str) -> None:
    text = message.replace("{}", str(line))

    assert str(PROGRAM.error(text)) == f"lua/{place}: {text}"


def test_an_error_without_a_line_names_the_program() -> None:
    assert str(PROGRAM.error("WRONGTYPE of a foreign key")) == "apply: WRONGTYPE of a foreign key"


@pytest.mark.parametrize("file", ["operations/balance.lua", "state/account.lua", "apply.lua"])
async def test_an_error_raised_in_redis_is_mapped(
    gateway: RedisGateway, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    """On either server, whose messages differ: a fault on the second line of a function of that file."""
    folder = tmp_path / "lua"
    shutil.copytree(lua_folder(), folder)
    lines = (folder / file).read_text().split("\n")
    at = {"operations/balance.lua": "function operations.balance", "state/account.lua": "local function new_account"}
    start = next((n for n, line in enumerate(lines) if line.startswith(at.get(file, "read_ahead()"))), 0)
    lines.insert(start + 1, "  local fault = nil .. 'x'")
    (folder / file).write_text("\n".join(lines))
    monkeypatch.setattr(engine._batchers[0], "_program", apply_program(folder))

    with pytest.raises(ScriptError) as raised:
        await engine.run("u", balance("u"))

    assert str(raised.value).startswith(f"lua/{file}:{start + 2}: ")


def test_the_folder_is_found_in_a_checkout() -> None:
    assert (lua_folder() / "apply.lua").is_file()
    assert re.fullmatch(r".*/(lua|meter/_lua)", str(lua_folder()))
