"""Fixtures of the replay: a sidecar to replay against, a trace, and a console that keeps what is printed."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from rich.console import Console

from meter.engine.redis import RedisGateway
from tests.replay.sidecar import Sidecar

ROWS = 60


@pytest.fixture
async def sidecar(gateway: RedisGateway) -> AsyncIterator[Sidecar]:
    """A started sidecar."""
    found = Sidecar(gateway)
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Sixty requests within a second, written as the production trace is: CRLF, seven decimals, no last line end."""
    lines = [f"2023-11-16 18:15:{46 + n / ROWS:010.7f},{100 + 7 * n},{n * 13 % 500}" for n in range(ROWS)]
    path = tmp_path / "trace.csv"
    path.write_bytes("\r\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines]).encode())
    return path


@pytest.fixture
def console() -> Console:
    """A console that is no terminal; `text_of` reads it."""
    return Console(file=io.StringIO(), width=120)


def text_of(console: Console) -> str:
    """What a console of the fixture has printed."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
