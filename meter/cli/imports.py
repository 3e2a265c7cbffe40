"""`meter import …`: what another package kept, brought in. The work is in `meter/migration/`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from meter.cli.acting import Actor, actor_of
from meter.cli.deployment import DATA_DIR, DataDir, settings_of
from meter.cli.ending import run
from meter.cli.measure import Json

imports = typer.Typer(no_args_is_help=True, help="Bring in what another package kept. Safe to repeat.")


@imports.callback()
def _of() -> None:
    """A group, although there is only one to import from."""


@imports.command("credit-management")
def credit_management(
    source: Annotated[
        str | None,
        typer.Argument(
            help="mongodb://…, or a dump in JSON: a folder of collections, or one file.", show_default=False
        ),
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Of MongoDB, where the URL names none. [credit_management]", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and check everything, and change nothing.")] = False,
    actor: Actor = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Bring in balances, plans, subscriptions and open holds; exit code 1 when something could not come in.

    Without SOURCE from CREDIT_MONGO_URI and CREDIT_MONGO_DB.
    """
    from meter.cli.importing import import_credit_management

    source = source or os.environ.get("CREDIT_MONGO_URI", "")
    database = database or os.environ.get("CREDIT_MONGO_DB") or "credit_management"
    settings, who = settings_of(data_dir), actor_of(actor)
    run(import_credit_management(settings, source, database, who, dry_run=dry_run, as_json=as_json))
