"""Seeds of the simulator, and what it finds when a safeguard is gone.

`python -m tests.simulator 0 20000` plays as many as wanted and names those that failed; `python -m tests.simulator 17`
plays one of them again.
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from meter.engine.programs import apply_program, lua_folder
from meter.store.memory.store import MemoryStore
from tests.compiled_once import compile_scripts_once
from tests.faults.test_controls import CONTROLS, Control
from tests.simulator.play import OPERATIONS, play

pytestmark = [  # a process that is killed closes nothing
    pytest.mark.filterwarnings("ignore:Unclosed client session:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

SEEDS = int(os.environ.get("METER_SIMULATOR_SEEDS", "6"))
SEEDS_OF_A_CONTROL = 300
"""So many are played at most until one is red."""
IN_LUA = [control for control in CONTROLS if all(file.startswith("lua/") for file, _, _ in control.patches)]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What goes wrong on purpose fills no log."""
    compile_scripts_once()
    logging.disable(logging.CRITICAL)
    yield
    gc.collect()  # what it left open is told now, and not in the middle of somebody else's test
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_nothing_is_lost_doubled_or_invented(seed: int) -> None:
    played = play(seed)
    assert played.findings == [], f"python -m tests.simulator {seed}"
    assert played.operations >= OPERATIONS


def test_a_seed_tells_what_is_asked_and_in_which_weather() -> None:
    first, second = play(5), play(5)
    assert (first.weather, first.operations) == (second.weather, second.operations)
    assert first.happened and second.happened, "nothing went wrong in it"


@pytest.mark.slow
@pytest.mark.parametrize("control", IN_LUA, ids=lambda control: control.name)
def test_without_it_a_seed_is_red(control: Control, tmp_path: Path) -> None:
    folder = tmp_path / "lua"
    shutil.copytree(lua_folder(), folder)
    for file, text, instead in control.patches:
        path = tmp_path / file
        path.write_text(path.read_text().replace(text, instead))
    with patch("meter.engine.engine.apply_program", lambda **named: apply_program(folder, **named)):
        assert first_red(control.words | {"invented"}) < SEEDS_OF_A_CONTROL


@pytest.mark.slow
def test_without_the_compare_and_set_a_seed_is_red() -> None:
    with patch.object(MemoryStore, "_is_at", lambda *_: True), patch.object(MemoryStore, "_check_new", lambda *_: None):
        assert first_red(frozenset({"doubled", "difference", "unrecovered"})) < SEEDS_OF_A_CONTROL


def first_red(words: frozenset[str]) -> int:
    """The first seed with such a finding, or that does not come to its end."""
    for seed in range(SEEDS_OF_A_CONTROL):
        try:
            if words & {finding.word for finding in play(seed).findings}:
                break
        except TimeoutError:
            break
    else:
        return SEEDS_OF_A_CONTROL
    print(f"red by seed {seed}")  # noqa: T201
    return seed
