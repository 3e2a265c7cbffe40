"""What commands that make calls have in common: whom they call, how they print, and with which exit code they end.

0 done, 2 usage or settings, 3 not reached, 4 refused (its code is on stderr), 5 not allowed, 6 not found.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from meter.cli.acting import actor_of
from meter.cli.deployment import DATA_DIR, settings_of
from meter.cli.ending import complain
from meter.errors import ConfigError, MeterError, Unavailable

if TYPE_CHECKING:
    from meter.client.credits import Credits
    from meter.contract.answers import Refusal

Url = Annotated[str, typer.Option("--url", help="Of the sidecar. [METER_URL, else what runs in ./.meter]")]
Key = Annotated[str, typer.Option("--key", help="An operator's API key. [METER_KEY, METER_KEY_FILE]")]
All = Annotated[bool, typer.Option("--all", help="Every page; with --json one JSON document a line.")]

_CODES = {401: 5, 403: 5, 404: 6}
_SUSPENDED = "ACCOUNT_SUSPENDED"

Ask = Callable[["Credits", str], Awaitable[Any]]
"""A call of the meter, or of a list its page behind a cursor."""
Show = Callable[[Any], str]
"""The answer for people."""


Opened = Callable[[], AbstractAsyncContextManager["Credits"]]
"""Opens the meter that is called. Raises `ConfigError`."""


class Called:
    """A command: whom it calls, as whom, how it prints, and how the rest of a list is asked for."""

    def __init__(self, opened: Opened, actor: str = "", *, as_json: bool, more: str = "--all") -> None:
        self._opened, self._actor, self._as_json, self._more = opened, actor, as_json, more

    def tell(self, ask: Ask, show: Show, *, every_page: bool = False) -> None:
        """Asks, prints and ends."""
        try:
            code = asyncio.run(self._told(ask, show, every_page))
        except ConfigError as error:
            complain(error, 2)
        except Unavailable as error:
            complain(error, 3)
        except (MeterError, ValueError) as error:
            complain(error, 2)
        if code:
            raise typer.Exit(code)

    async def _told(self, ask: Ask, show: Show, every_page: bool) -> int:
        from meter.contract.answers import Refusal

        async with self._opened() as opened:
            meter = opened.by(actor_of(self._actor))
            cursor = ""
            while True:
                answer = await ask(meter, cursor)
                if isinstance(answer, Refusal):
                    return refused(answer)
                self._print(answer, show, by_line=every_page)
                cursor = getattr(answer, "next_cursor", None) or ""
                if not cursor:
                    return 0
                if not every_page:
                    typer.echo(f"more: {self._more.format(cursor=cursor)}", err=True)
                    return 0

    def _print(self, answer: Any, show: Show, *, by_line: bool) -> None:
        if not self._as_json:
            if text := show(answer):
                typer.echo(text)
        elif by_line and hasattr(answer, "items"):
            for one in answer.items:
                typer.echo(document_text(one.model_dump()))
        else:
            typer.echo(document_text(answer.model_dump()))


def over(url: str, key: str) -> Opened:
    """The sidecar at a URL, of METER_URL, or the one that runs in this folder; else the deployment itself."""

    def opened() -> AbstractAsyncContextManager[Credits]:
        from meter.client.over_http import MeterClient
        from meter.dev.instance import running_instance

        named = url or os.environ.get("METER_URL", "")
        instance = None if named else running_instance(DATA_DIR)
        if instance is not None and not os.environ.get("METER_REDIS_URL"):
            named = instance.url
        return MeterClient(named, api_key=key or _key_of_environment()) if named else on(DATA_DIR)()

    return opened


def on(data_dir: Path) -> Opened:
    """The deployment itself, that of the settings or of what runs in a folder: nobody else is asked."""

    def opened() -> AbstractAsyncContextManager[Credits]:
        from meter.in_process import Meter

        return Meter(settings_of(data_dir))

    return opened


def _key_of_environment() -> str | None:
    path = os.environ.get("METER_KEY_FILE", "")
    if not path:
        return os.environ.get("METER_KEY") or None
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise ConfigError(f"METER_KEY_FILE={path}: {error.strerror}") from None


def refused(refusal: Refusal) -> int:
    """Says why on stderr; answers the exit code."""
    typer.echo(f"meter: {refusal.code}: {refusal.detail}", err=True)
    return 4 if refusal.code == _SUSPENDED else _CODES.get(refusal.status, 4)


def key_of(given: str) -> str:
    """The idempotency key of a command that changes something; a drawn one is told, so that a repeat is safe."""
    if given:
        return given
    drawn = f"cli-{secrets.token_hex(8)}"
    typer.echo(f"--idempotency-key {drawn}", err=True)
    return drawn


def table(rows: Sequence[Sequence[object]], heads: Sequence[str]) -> str:
    """Columns side by side; nothing is cut. Amounts stand on the right."""
    texts = [list(heads), *([text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[at]) for row in texts) for at in range(len(heads))]
    amounts = {at for row in rows for at, cell in enumerate(row) if isinstance(cell, Decimal | int)}

    def line(row: Sequence[str]) -> str:
        sides = [one.rjust if at in amounts else one.ljust for at, one in enumerate(row)]
        return "  ".join(side(wide) for side, wide in zip(sides, widths, strict=True)).rstrip()

    return "\n".join(map(line, texts))


def pairs(answer: Any, *names: str) -> str:
    """Members with their values, a line each."""
    wide = max(map(len, names))
    return "\n".join(f"{name.ljust(wide)}  {text(getattr(answer, name))}" for name in names)


def text(value: object) -> str:
    """A value for people: amounts with their digits, times in UTC, nothing as a dash."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    if isinstance(value, Decimal):
        shown = f"{value.normalize():,f}"
        return shown if value else "0"
    if isinstance(value, list):
        return ", ".join(map(text, value)) or "-"
    return str(value)


def once(shown: str, secret: str | None) -> str:
    """What was made and, behind it, its text, which is told this once."""
    if not secret:
        return shown
    if sys.stdout.isatty():
        typer.echo("This text is shown once and kept nowhere.", err=True)
    return f"{shown}\n{secret}"


def document_text(document: object) -> str:
    """A document as JSON on one line; amounts have their very digits."""
    return orjson.dumps(document, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return orjson.Fragment(f"{value.normalize():f}")  # its very digits: a float has no more than fifteen
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03d}Z"
    raise TypeError(f"no JSON for {type(value).__name__}")
