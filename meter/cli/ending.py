"""How a command ends: done, or with one line on stderr and an exit code.

0 done, 1 the check that was asked for failed, 2 wrong usage or settings, 3 a server could not be reached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import NoReturn

import typer

from meter.errors import ConfigError, MeterError, Unavailable


def complain(error: Exception, code: int) -> NoReturn:
    """Ends the command with one line on stderr and an exit code."""
    typer.echo(f"meter: {error}", err=True)
    raise typer.Exit(code)


def run(command: Coroutine[None, None, int]) -> None:
    """Runs a command to its exit code."""
    try:
        code = asyncio.run(command)
    except ConfigError as error:
        complain(error, 2)
    except Unavailable as error:
        complain(error, 3)
    except MeterError as error:
        complain(error, 1)
    if code:
        raise typer.Exit(code)
