"""Which deployment a command works on: that of the environment, else the one that runs in the data folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meter.cli.ending import complain
from meter.cli.starting import begin_log
from meter.errors import ConfigError

if TYPE_CHECKING:
    from meter.config import Settings

DATA_DIR = Path(".meter")
DataDir = Annotated[Path, typer.Option(help="The folder of the `meter dev` to work on, if it runs.")]


def settings_of(data_dir: Path) -> Settings:
    """The settings of the environment, else those of the instance that runs in the data folder; the log begins."""
    from meter.config import load_settings
    from meter.dev.instance import settings_beside

    try:
        settings = load_settings(**settings_beside(data_dir, os.environ))
    except ConfigError as error:
        complain(error, 2)
    begin_log(settings)
    return settings
