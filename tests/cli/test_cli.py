"""The `meter` command: its help, and what it says and exits with when it is used or set up wrongly."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from redis import Redis
from typer.testing import CliRunner

from meter.cli.serve import app
from meter.dev.redis_server import EmbeddedServer
from meter.proxy.options import ProxyOptions, parse_statuses
from tests.e2e.processes import environment, free_port, run_meter
from tests.partition import Partition

DEADLINE_SECONDS = 30
COMMANDS = sorted(command.name or command.callback.__name__ for command in app.registered_commands if command.callback)


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No setting of this machine, an empty working directory, a deadline, and the signal handlers as they were."""
    for name in [name for name in os.environ if name.startswith("METER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGALRM, _too_late)
    signal.alarm(DEADLINE_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, before)


def _too_late(*_: object) -> None:
    raise TimeoutError("the command did not end")


def meter(*arguments: str, **variables: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, in this process."""
    ended = CliRunner().invoke(app, list(arguments), env={f"METER_{name}": value for name, value in variables.items()})
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended.exit_code, ended.stdout, ended.stderr


def test_help_names_every_command() -> None:
    assert {"dev", "serve", "worker"} <= set(COMMANDS)
    code, out, _ = meter("--help")
    assert code == 0
    for name in COMMANDS:
        assert f" {name} " in out.replace("│", " ")
    assert meter()[0] == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help(name: str) -> None:
    code, out, _ = meter(name, "--help")
    assert code == 0
    group = typer.main.get_command(app)
    command = group.commands[name]  # type: ignore[attr-defined]
    assert (command.help or "").split(":")[0].split(".")[0].split()[0] in out
    for option in command.params:
        assert option.opts[-1] in out or (option.human_readable_name or "").upper() in out.upper()


@pytest.mark.parametrize("name", COMMANDS)
def test_u13_help_is_whole_at_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """U13: no option and no word of any command is cut off."""
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = meter(name, "--help")
    assert (code, "…" in out, max(len(line) for line in out.splitlines()) <= 80) == (0, False, True)
    group = typer.main.get_command(app)
    command = group.commands[name]  # type: ignore[attr-defined]
    for option in command.params:
        assert all(flag in out for flag in (*option.opts, *option.secondary_opts) if flag.startswith("-"))
    words = " ".join(out.split()).replace("- ", "-")
    assert all(" ".join((getattr(option, "help", "") or "").split()) in words for option in command.params)


def test_u13_completion_is_there() -> None:
    assert {"--install-completion", "--show-completion"} <= set(meter("--help")[1].split())


def test_every_field_of_the_proxy_is_an_option_with_its_default() -> None:
    command = typer.main.get_command(app).commands["proxy"]  # type: ignore[attr-defined]
    by_name = {option.name: option for option in command.params}
    given = {name: option.default for name, option in by_name.items() if not option.required}
    assert set(by_name) == {field.name for field in fields(ProxyOptions)}
    standard = ProxyOptions(upstream="http://h")
    assert parse_statuses(given["charge_statuses"]) == set(standard.charge_statuses)  # type: ignore[call-overload]
    read = {"charge_statuses": standard.charge_statuses, "skip_paths": (), "routes": ()}
    assert ProxyOptions(upstream="http://h", **{**given, **read}) == standard


def test_the_version_is_that_of_the_package() -> None:
    assert meter("--version") == (0, f"{version('meter-sidecar')}\n", "")


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["serve", "--nonsense"], ["serve", "--workers", "0"], ["dev", "x"]]
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    code, out, err = meter(*arguments)
    assert (code, out) == (2, "")
    assert "Usage" in err


@pytest.mark.parametrize("command", ["dev", "serve", "worker"])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DECIMAL_PLACES", "many"),
        ("PARTITIONS", "0"),
        ("REDIS_URL", "http://127.0.0.1"),
        ("STORE_URL", "oracle://x"),
        ("REDIS_TIMEOUT_MS", ""),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it_and_exit_code_2(command: str, variable: str, value: str) -> None:
    code, out, err = meter(command, **{variable: value, "PORT": str(free_port())})
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("meter: ") and f"METER_{variable}" in line


def test_a_bad_option_is_told_like_its_setting() -> None:
    code, _, err = meter("serve", "--port", "70000")
    assert (code, err.startswith("meter: METER_PORT=70000: "), err.count("\n")) == (2, True, 1)
    code, _, err = meter("dev", "--host", "no.such.host.invalid")
    assert (code, "METER_HOST=no.such.host.invalid" in err, err.count("\n")) == (2, True, 1)


@pytest.mark.parametrize("command", ["dev", "serve"])
def test_a_port_that_is_taken_is_told_before_anything_starts(command: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, out, err = meter(command, "--port", str(taken.getsockname()[1]))
    (line,) = err.splitlines()
    assert (code, out) == (2, "")
    assert line.startswith("meter: METER_HOST=127.0.0.1 METER_PORT=") and "ddress already in use" in line
    assert list(tmp_path.iterdir()) == []


def test_a_data_dir_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = meter("dev", "--port", str(free_port()), "--data-dir", str(tmp_path / "file" / "data"))
    assert (code, err.count("\n")) == (2, 1)
    assert f"--data-dir {tmp_path / 'file' / 'data'}" in err


def test_a_data_dir_in_use_is_told_with_its_owner(tmp_path: Path) -> None:
    with EmbeddedServer(data_dir=tmp_path / ".meter" / "redis"):
        code, _, err = meter("dev", "--port", str(free_port()))
    assert (code, err.count("\n")) == (3, 1)
    assert f"Process {os.getpid()} runs" in err


@pytest.mark.parametrize(
    ("made_with", "variable"),
    [({"decimal_places": 2}, "METER_DECIMAL_PLACES=2"), ({"partitions": 2}, "METER_PARTITIONS=2")],
)
def test_a_redis_made_with_other_settings_refuses_to_serve(
    redis_url: str, made_with: dict[str, int], variable: str
) -> None:
    with Redis.from_url(redis_url) as client:
        client.flushall()
        assert Partition(client).open(**made_with) == "opened"  # type: ignore[arg-type]
        before = client.hgetall("meter:{p0}:meta")
        where = {"REDIS_URL": redis_url, "STORE_URL": "none", "REDIS_UNSAFE": "1"}
        code, out, err = meter("serve", "--port", str(free_port()), **where)
        assert client.hgetall("meter:{p0}:meta") == before
    (line,) = err.splitlines()
    assert (code, out) == (2, "")
    assert line.startswith("meter: ") and variable in line


def test_a_real_process_says_the_same(tmp_path: Path) -> None:
    ended = run_meter("serve", cwd=tmp_path, env=environment(decimal_places="many"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [
        "meter: METER_DECIMAL_PLACES='many': Input should be a valid integer, unable to parse string as an integer"
    ]
