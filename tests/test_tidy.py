"""The shape of the source, from its syntax trees: who may import whom, how large things are, how files are called, and
that nothing in it is dead or names what is not there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# The architecture, ground first: a folder (or a file at the top of `meter/`) imports what stands on lines above its
# own, never what stands on its own line or below. A new folder has to be put into a line here.
ORDER = """
errors keys api_key promo_code failures clock usage heap log event_loop redis_urls connection_faults
setting_files
amount config extension
store
engine contract
http client ledger alerts health schema_generator
charging plans top_ups runtime
jobs
api middleware dev
gateway worker console
openapi
app
in_process asgi
sync
proxy testing replay migration __init__
bench
cli
__main__
"""
LINES = [line.split() for line in ORDER.split("\n") if line]
LINE_OF = {room: number for number, rooms in enumerate(LINES) for room in rooms}

ONLY = {
    "engine": {
        "config",
        "clock",
        "keys",
        "api_key",
        "errors",
        "log",
        "redis_urls",
        "connection_faults",
        "setting_files",
    },
    "client": {"contract", "errors"},
    "http": {"contract", "amount", "keys", "api_key", "errors", "log"},
}
"""Folders that may import these and no more, whatever stands above them."""

# Which modules may touch a library, so that its types and its faults stay there.
LIBRARIES = {
    "redis": (
        *("meter.engine.redis", "meter.engine.connect", "meter.engine.connections", "meter.engine.cluster"),
        *("meter.engine.sentinel", "meter.bench", "meter.worker"),
    ),
    "arq": ("meter.worker",),
    "fakeredis": ("meter.testing",),
    "sqlalchemy": ("meter.store",),
    "pymongo": ("meter.store", "meter.migration"),
    "asyncpg": ("meter.store",),
    "asyncmy": ("meter.store",),
    "starlette": (
        *("meter.api", "meter.http", "meter.openapi", "meter.middleware", "meter.proxy", "meter.app"),
        "meter.console",
        *("meter.in_process", "meter.testing", "meter.bench"),
    ),
    "uvicorn": ("meter.http", "meter.api", "meter.proxy", "meter.worker", "meter.cli", "meter.dev", "meter.bench"),
    "jinja2": ("meter.console",),
    "typer": ("meter.cli",),
    "structlog": ("meter.log",),
    "logging": ("meter.log",),
    "aiohttp": ("meter.client", "meter.proxy", "meter.alerts", "meter.top_ups"),
    "prometheus_client": ("meter.api",),
    "jiter": ("meter.http",),
}

FILE_LINES_MAX, FUNCTION_LINES_MAX = 500, 60
NAMES_THAT_SAY_NOTHING = re.compile(r"(^|_)(utils?|helpers?|common|managers?|misc|stuff)(_|$)")
A_PATH = re.compile(r"(?<![\w./-])(?:meter|lua|tests|docs|examples|workers)/[\w./-]*\w\.(?:py|lua|md|html|yaml|conf)\b")

A_MODULE = re.compile(r"^(?:from|import) (meter(?:\.\w+)+)", re.MULTILINE)


def modules() -> dict[str, Path]:
    """Every module of the packages, by its dotted name; a package's own file is `name.__init__`."""
    paths = [path for package in ("meter", "workers") for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(paths)}


MODULES = modules()


@cache
def parsed() -> dict[str, ast.Module]:
    """What we ship, by module; parsed when a test asks, because every worker of `pytest -n` imports this file."""
    return {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


@cache
def parsed_tests() -> dict[str, ast.Module]:
    """The tests, by path."""
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in (ROOT / "tests").rglob("*.py")}


def imports(tree: ast.AST) -> Iterator[str]:
    """The dotted name of each import, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(name: str) -> str | None:
    """The module of ours that an imported name belongs to."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        for candidate in (".".join(parts[:end]), ".".join([*parts[:end], "__init__"])):
            if candidate in MODULES:
                return candidate
    return None


def room(module: str) -> str:
    """The folder of a module of `meter`, or the module itself where it stands at the top."""
    return module.split(".")[1]


def walks() -> dict[tuple[str, str], str]:
    """Which folder imports which, with one place where it does."""
    found = {}
    for name, tree in parsed().items():
        if name.startswith("meter."):
            for imported in imports(tree):
                target = own(imported)
                if target and target.startswith("meter.") and room(target) != room(name):
                    found[room(name), room(target)] = f"{name} imports {imported}"
    return found


def may_import(importer: str, imported: str) -> bool:
    """Whether one folder may import the other."""
    return LINE_OF[imported] < LINE_OF[importer] and imported in ONLY.get(importer, LINE_OF)


def test_every_folder_has_its_line_and_every_line_is_real() -> None:
    assert sorted({room(name) for name in MODULES if name.startswith("meter.")}) == sorted(LINE_OF)


def test_imports_only_go_down() -> None:
    """So that no two folders import each other, late imports and those for types included."""
    assert [place for walk, place in walks().items() if not may_import(*walk)] == []


def test_the_engine_knows_no_store() -> None:
    assert ("engine", "store") not in walks()


def test_nothing_of_ours_imports_the_folder_of_arqs_door() -> None:
    """A project may have a `workers/` of its own."""
    assert [
        name for name, tree in parsed().items() for found in imports(tree) if found.split(".")[0] == "workers"
    ] == []


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_touched_where_it_belongs(library: str) -> None:
    users = {name for name, tree in parsed().items() if any(found.split(".")[0] == library for found in imports(tree))}

    allowed = tuple(f"{place}." for place in LIBRARIES[library])
    assert {name for name in users if not f"{name}.".startswith(allowed)} == set()


def test_a_sidecar_does_not_load_arq() -> None:
    """Nor does anything that it imports at its start."""
    reached, todo = set(), ["meter.asgi"]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += [target for found in _early_imports(parsed()[name]) if (target := own(found))]

    assert "meter.engine.engine" in reached
    assert [name for name in reached if name.startswith("meter.worker")] == []


def _early_imports(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from imports(ast.Module([node], []))


def test_nothing_is_dead() -> None:
    """A definition at the top of a module is named somewhere else in what we ship, or is a door (a promised name)."""
    texts = [path.read_text() for path in MODULES.values()]
    texts += [(ROOT / "pyproject.toml").read_text(), (ROOT / "README.md").read_text()]
    texts += [path.read_text() for path in (ROOT / "examples").rglob("*.py")]
    words: dict[str, int] = {}
    for text in texts:
        for word in re.findall(r"\w+", text):
            words[word] = words.get(word, 0) + 1

    dead = [
        f"{name}: {defined}"
        for name, tree in parsed().items()
        for defined in _definitions(tree)
        if words[defined] < 2 and "migrations" not in name
    ]
    assert dead == []


def _definitions(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.decorator_list:
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_every_file_that_is_named_exists() -> None:
    folders = [ROOT / name for name in ("meter", "workers", "lua", "tests", "examples", "docs")]
    places = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "pyproject.toml", ".ci/run")]
    places += [path for folder in folders for path in folder.rglob("*") if path.suffix in {".py", ".lua", ".md", ".js"}]

    missing = [
        f"{path.relative_to(ROOT)} names {named}"
        for path in places
        if path.is_file()
        for named in A_PATH.findall(path.read_text())
        if not (ROOT / named).exists()
    ]
    assert missing == []


def test_every_module_that_is_named_exists() -> None:
    """In the text of a program that a test starts, too, where nothing else looks."""
    missing = [
        f"{path.relative_to(ROOT)} names {named}"
        for folder in ("meter", "workers", "tests", "examples")
        for path in (ROOT / folder).rglob("*.py")
        for named in A_MODULE.findall(path.read_text())
        if own(named) is None
    ]
    assert missing == []


def test_files_and_functions_are_short() -> None:
    paths = {str(path.relative_to(ROOT)): path for path in MODULES.values()}
    paths |= {name: ROOT / name for name in parsed_tests()}
    sizes = {name: len(path.read_text().splitlines()) for name, path in paths.items()}
    functions = {
        (name, node.name): (node.end_lineno or 0) - node.body[0].lineno + 1  # a signature of options is no length
        for name, tree in (*parsed().items(), *parsed_tests().items())
        if "migrations" not in name  # a migration is a list of statements, in order
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert {name: size for name, size in sizes.items() if size > FILE_LINES_MAX} == {}
    assert {place: size for place, size in functions.items() if size > FUNCTION_LINES_MAX} == {}


def test_a_name_says_what_a_file_is() -> None:
    parts = {part for name in (*MODULES, *parsed_tests()) for part in re.split(r"[./]", name)}

    assert {part for part in parts if NAMES_THAT_SAY_NOTHING.search(part)} == set()


def test_a_module_says_what_it_is_for() -> None:
    assert [
        name for name, tree in parsed().items() if not name.endswith("__init__") and not ast.get_docstring(tree)
    ] == []


def test_each_step_of_the_schema_follows_the_one_before_it() -> None:
    """Two steps that follow the same one, as two branches make them, would open no database."""
    files = sorted((ROOT / "meter" / "store" / "sql" / "migrations" / "versions").glob("v*.py"))
    names = [re.findall(r'^(?:down_)?revision = "?(\w+)"?$', file.read_text(), re.MULTILINE) for file in files]
    assert names[0] == ["0001", "None"]
    for number, (file, name) in enumerate(zip(files[1:], names[1:], strict=True), 2):
        assert name == [f"{number:04d}", f"{number - 1:04d}"] and file.name.startswith(f"v{number:04d}_"), file.name
        assert file.read_text().startswith(f'"""Version {number}: '), file.name


def test_no_test_goes_without_an_assertion() -> None:
    """An assert or `pytest.raises` of its own, or a call of something in this folder that has one."""
    calls = {
        (name, node.name): _called(node)
        for name, tree in parsed_tests().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    asserting = {"assert", "raises", "fail"}
    while more := {name for (_, name), called in calls.items() if called & asserting} - asserting:
        asserting |= more

    tests = [place for place in calls if place[1].startswith("test_") and not place[1].endswith("never_raise")]
    assert len(tests) > 500
    assert [place for place in tests if not calls[place] & asserting] == []


def _called(function: ast.AST) -> set[str]:
    """The names that a function calls, and "assert" when it asserts something."""
    names = {"assert" for node in ast.walk(function) if isinstance(node, ast.Assert)}
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            names.add(node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id)
    return names


def test_the_rules_can_fail() -> None:
    assert not may_import("amount", "engine")
    assert not may_import("engine", "store")
    assert not may_import("api", "cli")
    assert not may_import("client", "amount")
    assert not may_import("api", "api")
    assert NAMES_THAT_SAY_NOTHING.search("redis_utils")
    assert A_PATH.findall("(meter/amount.py), see lua/apply.lua") == ["meter/amount.py", "lua/apply.lua"]
    assert list(_definitions(ast.parse("A = 1\ndef b(): ...\n"))) == ["A", "b"]
