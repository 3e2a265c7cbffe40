"""The shape of the source, from its syntax trees: who may import whom, how large things are, how files are called.

A module may import its own layer and those above it in LAYERS, never those below; and no cycle anywhere. A new
module, or a new folder, has to be put into a layer here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A name stands for a module or for a folder with all that is in it; the longest name that fits counts.
LAYERS: dict[str, set[str]] = {
    "words": {
        *(
            "errors",
            "heap",
            "amount",
            "keys",
            "problem",
            "operation",
            "outbox",
            "model",
            "request_model",
            "plan_model",
            "notification_model",
            "periods",
            "surface",
        ),
        *("usage", "tally", "child", "credits", "plan_calls", "notification_calls"),
    },
    "outer world": {"config", "scripts", "redis", "store", "embedded"},
    "decisions": {"batcher", "engine", "wire", "fold", "ledger_row", "metrics", "ledger"},
    "work": {
        "history",
        "intake",
        "expiration",
        "restore",
        "rebuild",
        "reconcile",
        "subscriptions",
        "subscription_rows",
        "runtime",
        "notify",
    },
    "http": {"api", "gateway", "charging", "middleware", "proxy"},
    "whole": {"", "app", "asgi", "client", "local", "testing", "proxy.__init__", "proxy.server"},
    "commands": {"cli", "commands", "__main__", "dev", "operator_commands", "replay", "bench", "schema_generator"},
}
WORKERS_MAY_IMPORT = {"words", "outer world", "decisions", "work"}
MAY_IMPORT_WORKERS = {"meter.cli.serve", "meter.dev.processes", "meter.bench.flush"}

# Which modules may touch a library, so that its types and its faults stay there.
LIBRARIES = {
    "redis": ("meter.engine.redis", "meter.bench", "workers"),
    "arq": ("workers",),
    "fakeredis": ("meter.testing",),
    "sqlalchemy": ("meter.store", "meter.store.generated_schema"),
    "pymongo": ("meter.store",),
    "asyncpg": ("meter.store",),
    "asyncmy": ("meter.store",),
    "starlette": (
        *(
            "meter.api",
            "meter.middleware",
            "meter.proxy",
            "meter.app",
            "meter.in_process",
            "meter.testing",
            "meter.bench",
        ),
    ),
    "uvicorn": ("meter.api", "meter.proxy", "meter.cli.serve", "meter.dev.processes", "meter.bench"),
    "typer": ("meter.cli.serve", "meter.cli.measure"),
    "aiohttp": ("meter.client.over_http", "meter.proxy", "meter.alerts"),
    "prometheus_client": ("meter.api.metrics",),
}

FILE_LINES_MAX, FUNCTION_LINES_MAX = 500, 60
NAMES_THAT_SAY_NOTHING = re.compile(r"(^|_)(utils?|helpers?|common|managers?|misc|stuff)(_|$)")


def modules() -> dict[str, Path]:
    """Every module of the packages, by its dotted name; a package's own file is `name.__init__`."""
    paths = [path for package in ("meter", "workers") for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sorted(paths)}


MODULES = modules()
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
TEST_TREES = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in (ROOT / "tests").rglob("*.py")}


def imports(tree: ast.AST, *, lazy: bool = False) -> Iterator[tuple[str, bool]]:
    """(dotted name, whether it is imported inside a function or for types only) of each import."""
    for node in ast.iter_child_nodes(tree):
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        inside = inside or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        if isinstance(node, ast.Import):
            yield from ((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", inside) for alias in node.names)
        else:
            yield from imports(node, lazy=inside)


def own(name: str) -> str | None:
    """The module of ours that an imported name belongs to."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        for candidate in (".".join(parts[:end]), ".".join([*parts[:end], "__init__"])):
            if candidate in MODULES:
                return candidate
    return None


def dependencies(name: str, *, lazy: bool) -> set[str]:
    """The modules of ours that a module imports; with those imported lazily, or without."""
    found = imports(TREES[name])
    return {target for imported, late in found if lazy or not late if (target := own(imported))} - {name}


def layer(name: str) -> str | None:
    """The layer of a module of `meter`, or "workers"."""
    package, _, rest = name.partition(".")
    if package == "workers":
        return "workers"
    if rest == "__init__":
        rest = ""
    while True:
        for title, members in LAYERS.items():
            if rest in members:
                return title
        if "." not in rest:
            return None
        rest = rest.rpartition(".")[0]


def may_import(importer: str, imported: str) -> bool:
    """Whether the layer of one may import that of the other."""
    mine, other = layer(importer), layer(imported)
    if other == "workers":
        return mine == "workers" or importer in MAY_IMPORT_WORKERS
    if mine == "workers":
        return other in WORKERS_MAY_IMPORT
    order = list(LAYERS)
    return mine is not None and other is not None and order.index(other) <= order.index(mine)


def test_every_module_has_a_layer_and_every_layer_is_real() -> None:
    assert [name for name in MODULES if layer(name) is None] == []
    named = {name for members in LAYERS.values() for name in members}
    assert len(named) == sum(map(len, LAYERS.values()))


def test_imports_go_one_way() -> None:
    wrong = [
        f"{name} ({layer(name)}) imports {other} ({layer(other)})"
        for name in MODULES
        for other in sorted(dependencies(name, lazy=True))
        if not may_import(name, other)
    ]

    assert wrong == []


def test_there_is_no_cycle() -> None:
    graph = {name: dependencies(name, lazy=False) for name in MODULES}

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert graph


def test_workers_are_imported_late() -> None:
    """So that a sidecar does not load arq."""
    early = {
        name
        for name in MODULES
        if name.startswith("meter.")
        for other in dependencies(name, lazy=False)
        if other.startswith("workers")
    }

    assert early == set()


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_touched_where_it_belongs(library: str) -> None:
    users = {name for name, tree in TREES.items() if any(found.split(".")[0] == library for found, _ in imports(tree))}

    allowed = tuple(f"{place}." for place in LIBRARIES[library])
    assert {name for name in users if not f"{name}.".startswith(allowed)} == set()


def test_files_and_functions_are_short() -> None:
    paths = {str(path.relative_to(ROOT)): path for path in MODULES.values()}
    paths |= {name: ROOT / name for name in TEST_TREES}
    sizes = {name: len(path.read_text().splitlines()) for name, path in paths.items()}
    functions = {
        (name, node.name): (node.end_lineno or 0) - node.body[0].lineno + 1  # a signature of options is no length
        for name, tree in (*TREES.items(), *TEST_TREES.items())
        if "migrations" not in name  # a migration is a list of statements, in order
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert {name: size for name, size in sizes.items() if size > FILE_LINES_MAX} == {}
    assert {place: size for place, size in functions.items() if size > FUNCTION_LINES_MAX} == {}


def test_a_name_says_what_a_file_is() -> None:
    parts = {part for name in (*MODULES, *TEST_TREES) for part in re.split(r"[./]", name)}

    assert {part for part in parts if NAMES_THAT_SAY_NOTHING.search(part)} == set()


def test_a_module_says_what_it_is_for() -> None:
    assert [name for name, tree in TREES.items() if not name.endswith("__init__") and not ast.get_docstring(tree)] == []


def test_no_test_goes_without_an_assertion() -> None:
    """An assert or `pytest.raises` of its own, or a call of something in this folder that has one."""
    calls = {
        (name, node.name): _called(node)
        for name, tree in TEST_TREES.items()
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
    assert not may_import("meter.amount", "meter.engine.engine")
    assert not may_import("meter.engine.engine", "meter.api.credits")
    assert not may_import("meter.api.credits", "meter.cli.serve")
    assert not may_import("meter.api.credits", "workers.sweep")
    assert not may_import("workers.sweep", "meter.api.credits")
    assert not may_import("workers.sweep", "meter.app")
    assert layer("meter.brand_new") is None
    assert NAMES_THAT_SAY_NOTHING.search("redis_utils")
