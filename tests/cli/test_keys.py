"""`meter keys` on a deployment, and the address that a sidecar without keys does not listen on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from redis import Redis
from typer.testing import CliRunner

from meter.cli.serve import app
from tests.e2e.processes import free_port


@pytest.fixture
def variables(redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A deployment of its own, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    Redis.from_url(redis_url).flushall()
    return {"METER_REDIS_URL": redis_url, "METER_STORE_URL": f"sqlite:///{tmp_path}/m.db", "METER_REDIS_UNSAFE": "1"}


def meter(variables: dict[str, str], *arguments: str) -> tuple[int, str, str]:
    ended = CliRunner().invoke(app, list(arguments), env=variables)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended.exit_code, ended.stdout, ended.stderr


def test_the_first_operators_key_is_made_by_hand_and_told_once(variables: dict[str, str]) -> None:
    code, out, _ = meter(variables, "keys", "create", "--admin", "--name", "first")
    told, text = out.splitlines()
    assert (code, text[:8]) == (0, "mk_live_")
    key_id = told.split(" ")[0]
    assert told == f"{key_id} active operator admin:read,admin:write (first)"
    code, out, _ = meter(variables, "keys", "create", "acme/alice", "--model", "gpt-4o", "--json")
    users = json.loads(out)
    assert (code, users["user_id"], users["models"], users["scopes"]) == (
        0,
        "acme/alice",
        ["gpt-4o"],
        ["spend", "read:self"],
    )

    code, out, _ = meter(variables, "keys", "list")
    assert (code, len(out.splitlines()), text in out, users["key"] in out) == (0, 2, False, False)
    code, out, _ = meter(variables, "keys", "list", "acme/alice", "--json")
    assert [one["key_id"] for one in json.loads(out)["items"]] == [users["key_id"]]
    code, out, _ = meter(variables, "keys", "rotate", users["key_id"], "--overlap", "60", "--json")
    assert (code, json.loads(out)["rotated_from"]) == (0, users["key_id"])
    code, out, _ = meter(variables, "keys", "revoke", key_id, "--reason", "lost")
    assert (code, out.split(" ")[1]) == (0, "revoked")
    code, _, err = meter(variables, "keys", "rotate", key_id)
    assert (code, err.count("\n")) == (4, 1)


def test_promo_codes_are_made_listed_and_stopped_by_hand(variables: dict[str, str]) -> None:
    code, out, _ = meter(variables, "codes", "create", "2.5", "--max-total", "3", "--valid-days", "7")
    told, text = out.splitlines()
    code_id = told.split(" ")[0]
    assert (code, told) == (0, f"{code_id} active 2.5 credits for 7 days 0/3")
    code, out, _ = meter(variables, "codes", "create", "1", "--max-total", "1", "--code", "spring", "--json")
    assert (code, json.loads(out)["code"]) == (0, "SPRING")
    code, out, _ = meter(variables, "codes", "list")
    assert (code, len(out.splitlines()), text in out, "SPRING" in out) == (0, 2, False, False)
    code, out, _ = meter(variables, "codes", "stop", code_id, "--reason", "shared")
    assert (code, out.split(" ")[1]) == (0, "stopped")
    code, _, err = meter(variables, "codes", "create", "1", "--max-total", "1", "--code", "Spring")
    assert (code, err) == (4, "meter: CODE_EXISTS: There is a promo code of that text.\n")


@pytest.mark.parametrize("arguments", [(), ("u", "--admin")])
def test_a_key_is_a_users_or_an_operators(variables: dict[str, str], arguments: tuple[str, ...]) -> None:
    assert meter(variables, "keys", "create", *arguments)[0] == 2


@pytest.mark.parametrize("command", ["serve", "dev"])
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_nobody_listens_to_strangers_who_are_not_asked_for_keys(command: str, host: str, tmp_path: Path) -> None:
    code, out, err = meter({}, command, "--host", host, "--port", str(free_port()))

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"meter: METER_HOST={host}: ") and "METER_AUTH=keys" in err


@pytest.mark.parametrize("leave", [("METER_AUTH", "keys"), ("METER_UNSAFE_OPEN_BIND", "1")])
def test_who_says_so_may(leave: tuple[str, str]) -> None:
    code, _, err = meter(dict([leave]), "serve", "--host", "192.0.2.1", "--port", str(free_port()))

    assert (code, "cannot listen there" in err) == (2, True), "it is asked of the machine, not of us"
