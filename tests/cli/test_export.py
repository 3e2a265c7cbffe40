"""`meter export`: every row of a kind, page by page, with how many and their SHA-256."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from meter.cli import app, exporting
from meter.testing import app_in_step
from tests.api.sidecar import serving

Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """The command on a sidecar with credits and charges of two users, in pages of two."""
    monkeypatch.setattr(exporting, "PAGE", 2)

    def run(*words: str) -> Result:
        return CliRunner().invoke(app, [*words])

    with serving(app_in_step(partitions=2)) as url:
        monkeypatch.setenv("METER_URL", url)
        for user in ("acme", "evil"):
            for n in range(3):
                assert run("add", user, "10.25", "--reason", f"=sum({n})", "--id", f"g{n}").exit_code == 0
            assert run("deduct", user, "1.000001", "--reason", "One image").exit_code == 0
        yield run


def rows(result: Result) -> list[dict[str, str]]:
    assert result.exit_code == 0, result.output
    return list(csv.DictReader(io.StringIO(result.stdout)))


def test_transactions_are_all_there_with_their_digits(command: Command) -> None:
    found = command("export", "transactions")
    told = rows(found)
    assert len(told) == 8 and {row["amount"] for row in told if row["kind"] == "deduct"} == {"1.000001"}
    assert {row["description"] for row in told if row["kind"] == "grant"} == {"'=sum(0)", "'=sum(1)", "'=sum(2)"}
    assert found.stderr == f"8 rows, SHA-256 {sha256(found.stdout.encode()).hexdigest()}\n"


def test_grants_with_whose_they_are_into_a_file(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "grants.ndjson"
    found = command("export", "grants", "--format", "ndjson", "--out", str(out))
    assert (found.exit_code, found.stdout) == (0, "")
    told = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted((row["user_id"], row["grant_id"]) for row in told) == [
        (user, f"g{n}") for user in ("acme", "evil") for n in range(3)
    ]
    assert sum(row["remaining"] for row in told) == pytest.approx(2 * (30.75 - 1.000001))
    assert sha256(out.read_bytes()).hexdigest() in found.stderr


def test_users_and_usage(command: Command) -> None:
    assert [row["user_id"] for row in rows(command("export", "users"))] == ["acme", "evil"]
    spent = rows(command("export", "usage"))
    assert set(spent[0]) == {*exporting.USAGE_BY, "requests", "charged", "refunded", "spent", "quantities"}
    assert {(row["user"], row["charged"]) for row in spent} == {("acme", "1.000001"), ("evil", "1.000001")}


def test_what_is_refused_is_told(command: Command) -> None:
    found = command("export", "usage", "--to", "2030-01-01T00:10:00")
    assert (found.exit_code, found.stdout) == (4, "") and "VALIDATION_ERROR" in found.stderr
    assert command("export", "everything").exit_code == 2
