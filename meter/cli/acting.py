"""Who changes something by hand, for the ledger and its events."""

from __future__ import annotations

import getpass
import re
from typing import Annotated

import typer

Actor = Annotated[
    str, typer.Option("--actor", help="Who does it, for the ledger. [cli:<user of this machine>]", show_default=False)
]


def actor_of(given: str) -> str:
    """Who was named, else the user of this machine. Raises `typer.BadParameter` for what X-Actor would not take."""
    from meter.contract.fields import is_actor

    if given:
        if not is_actor(given):
            raise typer.BadParameter(
                "1 to 128 visible ASCII characters without quotes and backslashes", param_hint="--actor"
            )
        return given
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        user = "unknown"
    return "cli:" + re.sub(r"[^!#-\[\]-~]", "_", user)[:120]
