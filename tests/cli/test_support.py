"""The commands of support against a running sidecar: what they print, and their exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx2
import pytest
from typer.testing import CliRunner, Result

from meter.cli import app
from meter.testing import app_in_step
from tests.api.sidecar import serving

Command = Callable[..., Result]


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with serving(app_in_step(partitions=2)) as url:
        monkeypatch.setenv("METER_URL", url)
        yield url


@pytest.fixture
def command(base: str) -> Command:
    def run(*words: str) -> Result:
        return CliRunner().invoke(app, [*words], env={"COLUMNS": "80"})

    return run


def told(result: Result) -> object:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_credits_in_spent_explained_and_given_back(command: Command) -> None:
    added = command("add", "acme", "100", "--reason", "Welcome", "--id", "g-1", "--ends", "30d")
    assert (added.exit_code, added.stdout) == (0, "g-1: can spend 100\n")
    assert "--idempotency-key cli-" in added.stderr
    charge = told(command("deduct", "acme", "12.5", "--reason", "One image", "--json"))
    assert isinstance(charge, dict) and charge["available"] == 87.5
    assert command("balance", "acme").stdout.splitlines()[0].split() == ["available", "87.5"]
    assert command("explain", "acme", "80").stdout == "Yes. It burns 80 of g-1.\n"
    refused = command("explain", "acme", "90")
    assert (refused.exit_code, refused.stdout) == (4, "No, insufficient. It is 2.5 short. credits of acme 87.5.\n")
    shown = command("show", charge["transaction_id"])
    assert "deduct" in shown.stdout and shown.stdout.endswith("refundable  12.5\n")
    back = command("refund", charge["transaction_id"], "2.5", "--reason", "Half was blank", "--actor", "ada")
    assert "2.5 back, 10 left of the charge, can spend 90" in back.stdout
    assert "refund" in command("history", "acme").stdout
    assert command("history", "--actor", "ada").stdout.count("refund") == 1
    assert command("void", "acme", "g-1", "--reason", "Fraud").stdout == "90 taken, can spend 0\n"


def test_what_a_user_has_is_set_right(command: Command) -> None:
    given = command("adjust", "acme", "+5.5", "--reason", "An outage", "--grant", "amends")
    assert (given.exit_code, given.stdout) == (0, "5.5: can spend 5.5\n")
    taken = command("adjust", "acme", "-2", "--reason", "Too much", "--grant", "amends")
    assert (taken.exit_code, taken.stdout) == (0, "-2: can spend 3.5\n")
    tried = command("adjust", "acme", "-1", "--reason", "Too much", "--dry-run")
    assert tried.stdout == "-1: would go from 3.5 to 2.5, next burns amends\n" and tried.stderr == ""
    tried = command("add", "acme", "10", "--reason", "r", "--id", "more", "--priority", "5", "--dry-run")
    assert tried.stdout == "more: would go from 3.5 to 13.5, burns at place 1, next burns more\n"
    refused = command("adjust", "acme", "-4", "--reason", "Too much")
    assert refused.exit_code == 4 and "ADJUSTMENT_EXCEEDS_CREDITS" in refused.stderr
    assert command("adjust", "acme", "5").exit_code == 2, "a reason is asked for"
    rows = told(command("history", "acme", "--kind", "adjust", "--json"))
    assert isinstance(rows, dict) and [row["amount"] for row in rows["items"]] == [-2, 5.5]


def test_credits_for_certain_things_are_given_and_spent(command: Command) -> None:
    assert command("add", "u", "5", "--reason", "r", "--only", "a", "--only", "b", "--id", "g").exit_code == 0
    assert command("deduct", "u", "1").exit_code == 4
    charge = told(command("deduct", "u", "2", "--tag", "b", "--json"))
    assert isinstance(charge, dict) and (charge["restricted"], charge["available"]) == (3, 0)


def test_the_same_key_twice_is_once(command: Command) -> None:
    for _ in range(2):
        assert command("add", "u", "5", "--reason", "r", "--idempotency-key", "k-1").exit_code == 0
    found = told(command("balance", "u", "--json"))
    assert isinstance(found, dict) and (found["user_id"], found["available"]) == ("u", 5)


def test_lists_and_every_page_as_lines_of_json(command: Command, base: str) -> None:
    for n in range(3):
        command("add", f"u{n}", "5", "--reason", "r")
    hold = {"user_id": "u0", "amount": 2, "reservation_id": "hold-1"}
    assert httpx2.post(f"{base}/credits/reservations", json=hold).status_code == 201
    lines = command("users", "--all", "--json", "--order", "-available").stdout.splitlines()
    assert [json.loads(line)["user_id"] for line in lines] == ["u1", "u2", "u0"]
    assert command("users", "--prefix", "u1").stdout.splitlines()[1].startswith("u1")
    assert "hold-1" in command("holds", "u0").stdout
    assert command("find", "hold-1").stdout.splitlines()[1].split()[:3] == ["reservation", "hold-1", "u0"]
    assert command("release", "hold-1").stdout == "can spend 5\n"
    assert command("grants", "u0").stdout.splitlines()[0].split()[0] == "grant"


def test_json_has_the_very_digits_of_an_amount(command: Command) -> None:
    """A float has fifteen of them, and the largest amount sixteen."""
    command("add", "u", "9007199254.740991", "--reason", "r")
    assert '"available":9007199254.740991' in command("balance", "u", "--json").stdout
    assert '"available":9007199254.740991' in command("users", "--all", "--json").stdout


def test_a_list_that_goes_on_says_so(command: Command) -> None:
    for n in range(51):
        assert command("add", "u", "1", "--reason", "r", "--id", f"g-{n}").exit_code == 0
    first = command("history", "u")
    assert (first.stderr, len(first.stdout.splitlines())) == ("more: --all\n", 51)
    every = command("history", "u", "--all", "--json")
    assert (every.stderr, len(every.stdout.splitlines())) == ("", 51)


def test_exit_codes_say_how_it_went(command: Command) -> None:
    short = command("deduct", "nobody", "5")
    assert (short.exit_code, "INSUFFICIENT_CREDITS" in short.stderr) == (4, True)
    assert command("show", "0-99-x-1").exit_code == 6
    assert command("refunds").exit_code == 2
    assert command("balance", "u", "--url", "http://127.0.0.1:1").exit_code == 3
    assert "refusals" in command("refusals").stdout
    assert "insufficient" in command("refusals", "nobody").stdout


def test_status_is_one_look(command: Command) -> None:
    shown = command("status")
    assert (shown.exit_code, shown.stdout.splitlines()[0]) == (0, "Serving. One thing needs somebody.")
