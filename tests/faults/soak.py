"""The long form of the fault suite: any length, goes on where it was stopped, every fault of the table in turn.

    python -m tests.faults.soak --seed 7 --operations 1000000 --store postgres
    python -m tests.faults.soak --seed 7 --operations 20000 --store sqlite --only "Redis killed, everysec"

Its state is in `--state` (.soak/<store>-<seed> when not given): histories, the store of SQLite, the data of Redis, what
happened; PostgreSQL's data are in the folder for temporary files, where its user may go. The same command goes on from
there. Ends with 1 when anything was found.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import quantiles

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.faults.table import TABLE, Fault
from tests.faults.town import Plan, Town, mounted_disk, opened_town
from tests.faults.trial import Score, Trial
from tests.store.servers import Postgres

CHECKED_EVERY = 12
"""Faults between two verdicts."""
_SHOWN = 30
"""Findings that are printed."""


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--operations", type=int, default=20_000, help="ends after so many (0: at --minutes)")
    parser.add_argument("--minutes", type=float, default=10**6, help="ends after so long")
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--state", type=Path)
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=12, help="of each client")
    parser.add_argument("--pause-ms", type=int, default=40, help="of a caller after an operation")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds of peace after each fault")
    parser.add_argument("--only", action="append", default=[], metavar="FAULT", help="of these names")
    parser.add_argument("--database", default="meter_soak", help="in PostgreSQL")
    return parser.parse_args()


def faults_in_turn(town: Town, seed: int, only: list[str]) -> Iterator[Fault]:
    """Every fault that can happen here, in another order each round."""
    every = [fault for faults in TABLE.values() for fault in faults if not only or fault.name in only]
    possible = [fault for fault in every if fault.missing(town) is None]
    lot = random.Random(seed)
    while possible:
        lot.shuffle(possible)
        yield from possible


def shown(trial: Trial, score: Score, command: str, started: float) -> Table:
    """What is known by now; lost, doubled and so on as of the last verdict."""
    words = score.words
    table = Table(title=command, caption=_caption(trial, score, started))
    for name in ("fault", "times", "recovery p50", "recovery p99"):
        table.add_column(name, justify="left" if name == "fault" else "right")
    for name, times in sorted(trial.faults.items()):
        found = trial.recoveries[name]
        cuts = quantiles(found, n=100, method="inclusive") if len(found) > 1 else found * 99
        table.add_row(name, str(times), f"{cuts[49]:.2f} s", f"{cuts[98]:.2f} s")
    everything = [one for each in trial.recoveries.values() for one in each]
    if len(everything) > 1:
        cuts = quantiles(everything, n=100, method="inclusive")
        table.add_row("all", str(sum(trial.faults.values())), f"{cuts[49]:.2f} s", f"{cuts[98]:.2f} s", style="bold")
    table.add_section()
    for word in ("lost", "doubled", "invented", "gap", "difference", "unnoticed", "unrecovered"):
        table.add_row(word, str(words[word]), style="red" if words[word] else "green")
    table.add_row("unknown, unresolved", str(score.unknown))
    table.add_row("gone with a noticed loss", str(score.forgotten))
    return table


def _caption(trial: Trial, score: Score, started: float) -> str:
    return (
        f"{score.operations} operations, {score.acknowledged} acknowledged, {score.transactions} transactions, "
        f"{score.asked} asked again at the end; {sum(trial.faults.values())} faults, "
        f"{time.monotonic() - started:.0f} s, the verdict took {score.seconds:.1f} s"
    )


async def soak(given: argparse.Namespace, command: str, postgres: Postgres | None) -> Score:
    """Rounds of faults with a verdict after each, until it was enough or something was found."""
    console = Console(width=100)
    state: Path = given.state or Path(".soak") / f"{given.store}-{given.seed}"
    state = state.absolute()
    disk = mounted_disk(state / "disk", 4096)
    if disk is None:
        console.print("no disk of its own can be mounted here: left out are the faults of full disks")
    plan = Plan(state, given.seed, given.clients, given.concurrency, given.pause_ms, given.users, disk=disk)
    if postgres is not None:
        with contextlib.suppress(Exception):  # there already
            await postgres.create(given.database)
    started, score = time.monotonic(), Score()
    async with opened_town(plan, postgres=postgres, database=given.database) as town:
        trial = Trial(town)
        faults = faults_in_turn(town, given.seed + sum(trial.faults.values()), given.only)
        with Live(console=console, refresh_per_second=1, transient=True) as live:
            while not score.findings and not is_enough(given, score, started):
                async with trial.under_load():
                    for _ in range(CHECKED_EVERY):
                        await trial.inflict(next(faults))
                        live.update(shown(trial, score, command, started))
                        await asyncio.sleep(given.pause)
                        if time.monotonic() - started > given.minutes * 60:
                            break
                score = await trial.verdict()
        console.print(shown(trial, score, command, started))
    for finding in score.findings[:_SHOWN]:
        console.print(f"{finding.invariant} {finding.word}: {finding.what}", style="red")
    return score


def is_enough(given: argparse.Namespace, score: Score, started: float) -> bool:
    """Whether it went on as long as wanted."""
    is_late: bool = time.monotonic() - started > given.minutes * 60
    return is_late or (given.operations > 0 and score.operations >= given.operations)


def main() -> int:
    """See the head of this file."""
    given = options()
    chosen = [] if "--seed" in sys.argv else ["--seed", str(given.seed)]
    command = shlex.join(["python", "-m", "tests.faults.soak", *sys.argv[1:], *chosen])
    os.environ.setdefault("METER_REDIS_UNSAFE", "1")
    print(command, flush=True)  # noqa: T201
    with ExitStack() as stack:
        postgres = None
        if given.store == "postgres":
            postgres = Postgres(
                os.environ.get("METER_TEST_POSTGRES_URL"),
                Path(tempfile.gettempdir()) / f"meter-soak-postgres-{given.seed}",
            )
            if postgres.can_restart:
                postgres.start()
                stack.callback(postgres.stop)
        score = asyncio.run(soak(given, command, postgres))
    return 1 if score.findings or score.unknown else 0


if __name__ == "__main__":
    sys.exit(main())
