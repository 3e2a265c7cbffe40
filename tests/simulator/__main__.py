"""Plays many seeds, and says which failed: `python -m tests.simulator 0 1000`, `python -m tests.simulator 17`."""

from __future__ import annotations

import logging
import os
import sys
import time
import traceback

from rich.console import Console

from tests.compiled_once import compile_scripts_once
from tests.simulator.play import play

SEED_OF_HASHES = "0"
SHOWN = 5
"""Findings of a seed that are printed."""


def main(first: int, end: int) -> int:
    """Ends with 1 when anything was found."""
    compile_scripts_once()
    logging.disable(logging.CRITICAL)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    failed, operations, happened, losses, began = [], 0, 0, 0, time.perf_counter()
    for seed in range(first, end):
        try:
            played = play(seed)
            found = [f"{one.invariant} {one.word}: {one.what}" for one in played.findings]
            operations += played.operations
            happened += len(played.happened)
            losses += played.losses
        except Exception:
            found = traceback.format_exc().splitlines()[-SHOWN:]
        if found:
            failed.append(seed)
            console.print(f"seed {seed}: {len(found)} findings", *found[:SHOWN], sep="\n  ")
    told = f"{operations} operations, {happened} calls failed or were the last of a process, {losses} losses of history"
    seconds = time.perf_counter() - began
    console.print(f"{end - first} seeds, {told}, {seconds:.0f} s, failed: {failed or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != SEED_OF_HASHES:
        os.environ["PYTHONHASHSEED"] = SEED_OF_HASHES
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulator", *sys.argv[1:]])
    os.environ.setdefault("METER_REDIS_UNSAFE", "1")
    numbers = [int(one) for one in sys.argv[1:]] or [0, 100]
    sys.exit(main(numbers[0], numbers[1] if len(numbers) > 1 else numbers[0] + 1))
