"""U6: what refuses us is told in one line with its remedy and ends a start with 2; what is away is waited for."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis, exceptions

from meter.config import Settings
from meter.engine.connect import connect
from meter.engine.redis_faults import fault_of
from meter.errors import ConfigError, RedisDenied, RedisUnavailable, RedisUnknown
from meter.health.status import Name
from meter.runtime import Runtime
from tests.e2e.processes import environment, free_port, run_meter
from tests.servers import embedded_server


def _verify(words: str) -> Exception:
    error = exceptions.ConnectionError("Error 1 connecting to h:6379.")
    cause = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
    cause.verify_message = words
    error.__cause__ = cause
    return error


DENIED: list[tuple[Exception, str]] = [
    (exceptions.AuthenticationError("Authentication required."), "wants a password"),
    (
        exceptions.AuthenticationError("HELLO must be called with the client already authenticated, otherwise …"),
        "wants a password",
    ),
    (exceptions.AuthenticationError("invalid username-password pair or user is disabled."), "refuses the user or"),
    (exceptions.ResponseError("WRONGPASS invalid username-password pair"), "refuses the user or the password"),
    (
        exceptions.AuthenticationError("AUTH <password> called without any password configured for the default user"),
        "has no password and refuses one",
    ),
    (exceptions.NoPermissionError("this user has no permissions to run the 'ping' command"), "docs/redis.md"),
    (exceptions.ResponseError("DENIED Redis is running in protected mode because"), "protected mode"),
    (exceptions.ResponseError("DB index is out of range"), "no database of that number"),
    (exceptions.ResponseError("MOVED 866 10.0.0.1:6379"), "Redis Cluster"),
    (exceptions.InvalidResponse('Protocol error, got "H" as reply type byte'), "no Redis"),
    (_verify("Hostname mismatch, certificate is not valid for 'h'."), "for another name"),
    (_verify("IP address mismatch, certificate is not valid for '10.0.0.1'."), "for another name"),
    (_verify("self-signed certificate in certificate chain"), "METER_REDIS_CA_FILE"),
    (_verify("unable to get local issuer certificate"), "METER_REDIS_CA_FILE"),
    (_verify("certificate has expired"), "expired"),
    (exceptions.ConnectionError("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)"), "no TLS"),
    (
        exceptions.ConnectionError("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required"),
        "METER_REDIS_CERT_FILE",
    ),
]
AWAY: list[Exception] = [
    exceptions.ConnectionError("Error 111 connecting to 127.0.0.1:6379. Connection refused."),
    exceptions.ConnectionError("Error -2 connecting to nohost:6379. Name or service not known."),
    exceptions.TimeoutError("Timeout reading from socket"),
    exceptions.BusyLoadingError("Redis is loading the dataset in memory"),
    exceptions.ConnectionError("Connection closed by server."),
    exceptions.ResponseError("ERR max number of clients reached"),
    ConnectionResetError(104, "Connection reset by peer"),
]


@pytest.mark.parametrize(("error", "words"), DENIED, ids=lambda part: str(part)[:40])
def test_u6_what_refuses_us_is_told_with_its_remedy(error: Exception, words: str) -> None:
    fault = fault_of(error, "METER_QUEUE_URL")
    assert isinstance(fault, RedisDenied)
    assert str(fault).startswith("METER_QUEUE_URL: ") and words in str(fault)
    assert len(str(fault).splitlines()) == 1


@pytest.mark.parametrize("error", AWAY, ids=lambda error: str(error)[:40])
def test_u6_what_is_away_is_waited_for(error: Exception) -> None:
    fault = fault_of(error)
    assert not isinstance(fault, RedisDenied)
    assert fault.word == "away"


@pytest.mark.parametrize(
    ("words", "unknown"),
    [
        ("Error -2 connecting to h:6379. Name or service not known.", True),
        ("Error -5 connecting to h:6379. No address associated with hostname.", True),
        ("Error 8 connecting to h:6379. nodename nor servname provided, or not known.", True),
        ("Error -3 connecting to h:6379. Temporary failure in name resolution.", False),
        ("Error 111 connecting to 127.0.0.1:6379. Connection refused.", False),
    ],
)
def test_u6_a_host_without_an_address_is_told_from_one_that_is_down(words: str, unknown: bool) -> None:
    fault = fault_of(exceptions.ConnectionError(words))
    assert isinstance(fault, RedisUnknown) is unknown
    assert not isinstance(fault, RedisDenied)


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The hosts that have an address, by name, and from which question on; and how often it was asked for."""
    known = {"asked": 0}
    real = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if not name.endswith(".test"):
            return real(host, *args, **named)
        known["asked"] += 1
        if known["asked"] < known.get(name, 10**9):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real("127.0.0.1", *args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


async def test_u6_a_host_that_gets_no_address_ends_the_start(resolved: dict[str, int]) -> None:
    settings = Settings(redis_url="redis://u:secret@redis.test:1/0", store_url="none", start_wait_seconds=0)
    runtime = Runtime(settings)
    with pytest.raises(ConfigError, match=r"its host has no address.*METER_START_WAIT_SECONDS=0 are over") as raised:
        await runtime.check()
    await runtime.close()
    assert resolved["asked"] > 0 and "secret" not in str(raised.value)


async def test_u6_a_host_that_gets_an_address_in_time_is_started_on(
    resolved: dict[str, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As Compose and Kubernetes start things: the name is there a moment later."""
    with embedded_server(tmp_path) as server, Redis.from_url(server.url) as client:
        resolved["redis.test"] = 4
        port = client.get_connection_kwargs()["port"]
        settings = Settings(redis_url=f"redis://redis.test:{port}/0", store_url="none", redis_timeout_ms=5_000)
        runtime = Runtime(settings)
        await runtime.check()
        await runtime.close()
        assert client.hget("meter:{p0}:meta", "state") == b"open"
    assert sum("it is waited for" in one.getMessage() for one in caplog.records) == 1


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A server whose users can be changed."""
    with embedded_server(tmp_path_factory.mktemp("users")) as server, Redis.from_url(server.url) as client:
        yield client


def _users(admin: Redis, *rules: str) -> None:
    run: Any = admin.execute_command
    run("ACL", "SETUSER", "m", "reset", "on", "~*", "+@all", *rules)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://m:wrong@127.0.0.1:{port}/0", "refuses the user or the password"),
        ("redis://nobody:x@127.0.0.1:{port}/0", "refuses the user or the password"),
        ("redis://127.0.0.1:{port}/99", "no database of that number"),
        ("rediss://127.0.0.1:{port}/0", "redis://, not rediss://"),
    ],
)
async def test_u6_a_start_is_refused_in_one_line(admin: Redis, url: str, words: str) -> None:
    _users(admin, ">right")
    settings = Settings(
        redis_url=url.format(port=admin.get_connection_kwargs()["port"]), store_url="none", redis_timeout_ms=2_000
    )
    runtime = Runtime(settings)
    with pytest.raises(ConfigError, match=words) as raised:
        await runtime.start()
    await runtime.close()
    with pytest.raises(ConfigError, match=words):
        checked = Runtime(settings)
        try:
            await checked.check()
        finally:
            await checked.close()
    assert "wrong" not in str(raised.value)


async def test_u6_a_password_that_is_wanted_is_asked_for(tmp_path: Path) -> None:
    with embedded_server(tmp_path) as server, Redis.from_url(server.url) as client:
        client.config_set("requirepass", "secret")
        gateway = connect(server.url, timeout_seconds=5, connections_max=1)
        with pytest.raises(RedisDenied, match=r"wants a password.*redis://user:password@"):
            await gateway.ping()
        await gateway.close()
        client.config_set("requirepass", "")


async def test_u6_while_it_runs_refused_and_away_are_told_apart(admin: Redis) -> None:
    _users(admin, ">right")
    port = admin.get_connection_kwargs()["port"]
    settings = Settings(redis_url=f"redis://m:right@127.0.0.1:{port}/0", store_url="none", redis_timeout_ms=5_000)
    async with Runtime(settings) as runtime:
        assert (await runtime.watch.look()).parts[Name.REDIS].state == "ok"
        _users(admin, ">other")
        run: Any = admin.execute_command
        run("CLIENT", "KILL", "USER", "m")
        part = (await runtime.watch.look_and_try()).parts[Name.REDIS]
        assert part.state == "refuses" and part.detail.startswith("METER_REDIS_URL: ")
        _users(admin, ">right")
        async with asyncio.timeout(10):
            while (await runtime.watch.look_and_try()).parts[Name.REDIS].state != "ok":
                await asyncio.sleep(0.02)


async def test_u6_an_address_where_nobody_is_is_away() -> None:
    gateway = connect(f"redis://127.0.0.1:{free_port()}/0", timeout_seconds=1, connections_max=1)
    with pytest.raises(RedisUnavailable) as raised:
        await gateway.ping()
    assert raised.value.word == "away"
    await gateway.close()


COMMANDS = (("serve",), ("worker",), ("jobs", "all"), ("rebuild",), ("reconcile",), ("proxy", "--upstream", "http://h"))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_u6_every_command_ends_with_one_line_and_2(admin: Redis, tmp_path: Path, command: tuple[str, ...]) -> None:
    _users(admin, ">right")
    url = f"redis://m:hunter2@127.0.0.1:{admin.get_connection_kwargs()['port']}/0"
    env = environment(redis_url=url, store_url=f"sqlite:///{tmp_path}/m.db", port=free_port(), redis_timeout_ms=5_000)
    more = ("--port", str(free_port())) if command[0] == "proxy" else ()
    run = run_meter(*command, *more, cwd=tmp_path, env=env)
    assert run.returncode == 2, run.stderr
    (line,) = [line for line in run.stderr.splitlines() if "password" in line]
    assert line.startswith("meter: METER_REDIS_URL: ")
    assert "hunter2" not in run.stderr and "Traceback" not in run.stderr
