"""`import meter` gives every promised name, and loads what is asked for and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

import meter

STARTS = """
import sys

def loaded(*names):
    return [name for name in names if name in sys.modules]

import meter
print(loaded("meter.client", "meter.contract", "meter.engine", "aiohttp", "pydantic"))
from meter import MeterClient
print(loaded("meter.in_process", "meter.engine", "redis", "starlette", "sqlalchemy"))
import meter.cli
print(loaded("meter.app", "meter.engine", "redis", "sqlalchemy", "arq"))
"""


def test_a_name_loads_its_own_half() -> None:
    """A client needs no server and the command line's help neither: each takes a second of CPU less."""
    ran = subprocess.run([sys.executable, "-c", STARTS], text=True, capture_output=True, check=True)
    assert ran.stdout.splitlines() == ["[]"] * 3


@pytest.mark.parametrize("name", meter.__all__)
def test_every_promised_name_is_there(name: str) -> None:
    assert getattr(meter, name).__module__.startswith("meter.")
    assert name in dir(meter)


def test_a_name_that_is_not_there_is_told() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = meter.Nonsense  # type: ignore[attr-defined]
