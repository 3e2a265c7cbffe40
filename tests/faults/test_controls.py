"""Negative controls: with one safeguard taken out of a copy of the code, the suite has to find what goes wrong.

Each is a text of the source and what stands there instead; a text that is not there any more fails its test.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT
from tests.faults.table import TABLE, Fault
from tests.faults.town import Plan, opened_town
from tests.faults.trial import Trial

pytestmark = pytest.mark.faults

TRANSACTIONS = 400
"""Before a fault and after it, however fast the machine is: fewer may miss what a safeguard is for."""
Patch = tuple[str, str, str]
"""A file, a text of it, and what takes its place."""


@dataclass(frozen=True)
class Control:
    """A safeguard that is gone, the fault that shows it (none: load alone does), and what has to be found."""

    name: str
    patches: tuple[Patch, ...]
    fault: str
    words: frozenset[str]
    settings: dict[str, object] = field(default_factory=dict)
    times: int = 1


CONTROLS = (
    Control(
        "the key of an operation",
        (
            ("lua/apply.lua", "local first = recent('k ' .. key)", "local first = false"),
            ("lua/plain/run.lua", "if current_key ~= '' and recent('k ' .. current_key) then break end", ""),
        ),
        "",
        frozenset({"doubled"}),
    ),
    Control(
        "the compare-and-set of the store",  # with its unique keys, which alone hold, too
        (
            ("meter/store/sql/flush.py", 'PLACE = ("partition", "epoch", "seq", "head")', 'PLACE = ("partition",)'),
            (
                "meter/store/sql/dialect.py",
                "self._statements[is_snapshot, model] = str(compiled)",
                "self._statements[is_snapshot, model] = str(compiled).replace('INSERT INTO t', 'REPLACE INTO t')",
            ),
        ),
        "worker frozen",
        frozenset({"difference", "unrecovered"}),
        {"flush_max": 5, "outbox_retention_seconds": 60},
        times=4,
    ),
    Control(
        "the chain of the outbox",
        (("meter/ledger/fold.py", "if self._head is not None and entry.prev != self._head:", "if False:"),),
        "entry exchanged",
        frozenset({"unnoticed"}),
    ),
    Control(
        "the answers of a sender's last batch",
        (("lua/batch.lua", "if sent == format('%d', batch) then", "if false then"),),
        "replies reset",
        frozenset({"doubled"}),
    ),
    Control(
        "what a sender was told of the history",
        (
            (
                "lua/state/history.lua",
                "local is_refused = ARGV[3] ~= 'repair' and (is_behind or",
                "local is_refused = ARGV[3] ~= 'repair' and (",
            ),
        ),
        "older file, no worker",
        frozenset({"unnoticed", "lost"}),
    ),
)


def patched(folder: Path, patches: tuple[Patch, ...]) -> Path:
    """A copy of what runs, without a safeguard."""
    for name in ("meter", "lua"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").symlink_to(ROOT / "tests")
    for name, text, instead in patches:
        source = (folder / name).read_text()
        assert source.count(text) == 1, f"{name} has changed: {text}"
        (folder / name).write_text(source.replace(text, instead))
    return folder


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
async def test_without_it_the_suite_is_red(control: Control, tmp_path: Path) -> None:
    code = patched(tmp_path / "code", control.patches)
    plan = Plan(tmp_path / "town", users=20, code=code, pause_ms=0, settings=control.settings)
    plan.folder.mkdir()
    async with opened_town(plan) as town:
        trial = Trial(town, sample_seconds=0.03)
        plan.patience_seconds = 20
        try:
            async with trial.under_load():
                await town.works(TRANSACTIONS)
                for _ in range(control.times if control.fault else 0):
                    fault = named(control.fault)
                    await trial.inflict(replace(fault, seconds=2 * fault.seconds))
                    await town.works(TRANSACTIONS)
        except AssertionError as error:  # it serves nobody any more
            trial.unrecovered.append(str(error))
        score = await trial.verdict()
    print(f"without {control.name}: {score.line()}")  # noqa: T201
    assert control.words & set(score.words), score.findings[:5]


def named(name: str) -> Fault:
    """A row of the table."""
    return next(fault for faults in TABLE.values() for fault in faults if fault.name == name)
