"""`meter jobs …`: by hand, until nothing is due, what the worker does by itself."""

from __future__ import annotations

import typer

from meter.cli.deployment import DATA_DIR, DataDir, settings_of
from meter.cli.ending import run
from meter.cli.measure import Json

# In the order in which one makes work for the next, as meter/jobs.py has them, which --help is too quick to import.
JOBS = {
    "expire": "End credits and holds that are due. No balance waits for it: whoever touches an account does it first.",
    "allocate": "Grant every period of a subscription that has begun. Each period is granted once.",
    "pending": "Apply grants that are durable and that Redis does not seem to have.",
    "remind": "Make the alerts of credits that end soon, as METER_EXPIRING_DAYS says.",
    "deliver": "Deliver alerts that are due. A target that does not answer is left alone.",
    "rotate": "Let Redis forget answers and finished reservations older than the idempotency window.",
    "rollup": "Count what the usage figures do not have yet, after an upgrade or `meter rollup --from`.",
    "runway": "Make the alerts of credits that run out soon, as METER_RUNS_OUT_DAYS says.",
    "top_up": "Carry out requests to buy credits that are due.",
}

jobs = typer.Typer(
    no_args_is_help=True,
    help="Do by hand, until nothing is due, what the worker does by itself. Safe beside it, and safe to repeat.",
)


def _add(command: str, names: list[str], text: str) -> None:
    def run_it(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
        from meter.cli import operate

        run(operate.jobs(settings_of(data_dir), names, as_json=as_json))

    jobs.command(command, help=text)(run_it)


for _name, _text in JOBS.items():
    _add(_name, [_name], _text)
_add("all", list(JOBS), "All of them, one after the other.")
