"""`meter doctor` and `meter status`: what is wrong with the deployment, and what to do about it."""

from __future__ import annotations

import os

import orjson
import typer

from meter.config import Settings
from meter.errors import ConfigError, MeterError, Unavailable
from meter.health.doctor import NAMES, Finding, findings_of
from meter.health.evidence import gathered
from meter.runtime import Runtime

_WORDS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL", "skip": "skip"}


async def doctor(settings: Settings, only: str, *, as_json: bool) -> int:
    """Examines the deployment and prints what was found; 1 where something fails."""
    if only and only not in NAMES:
        raise ConfigError(f"--only={only}: there are {', '.join(NAMES)}")
    runtime, fault = Runtime(settings), None
    try:
        try:
            await runtime.start()
        except Unavailable:
            pass  # the look finds it, in other words
        except MeterError as error:
            fault = error
        evidence = await gathered(settings, runtime.redis, runtime.watch, os.environ, fault)
    finally:
        await runtime.close()
    findings = findings_of(evidence, only)
    if as_json:
        typer.echo(orjson.dumps([one._asdict() for one in findings]).decode())
    else:
        for one in findings:
            _print(one)
    return 1 if any(one.level == "fail" for one in findings) else 0


def _print(one: Finding) -> None:
    found = f"({one.found})" if one.level == "skip" else one.found
    typer.echo(f"{_WORDS[one.level]} {one.name:<12} {found}")
    if one.remedy:
        typer.echo(f"     → {one.remedy}")
