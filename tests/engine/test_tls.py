"""X9: rediss:// proves who is there, by name and by CA, and shows our own certificate where one is wanted."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

from meter.config import Settings, load_settings
from meter.dev.redis_server import find_server_binary
from meter.engine.redis_url import NO_TLS_FILES, TlsFiles, tls_of
from meter.errors import ConfigError, RedisUnavailable
from meter.in_process import Meter
from meter.runtime import Runtime
from meter.worker.queue import check_queue, queue_pool
from tests.e2e.processes import environment, free_port, run_meter
from tests.pems import make_pems

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `make_pems`."""
    return make_pems(tmp_path_factory.mktemp("pems"))


@contextmanager
def serving(
    folder: Path, pems: Path, name: str, *more: str, clients: str = "no", config: Path | None = None
) -> Iterator[int]:
    """A server with the certificate of that name, whose clients show one: no, optional, yes."""
    port = free_port()
    tls = ["--tls-port", str(port), "--port", "0", "--tls-cert-file", str(pems / f"{name}.pem")]
    tls += ["--tls-key-file", str(pems / f"{name}.key"), "--tls-ca-cert-file", str(pems / "ca.pem")]
    command = [
        str(find_server_binary()),
        *((str(config),) if config else ()),
        *tls,
        "--tls-auth-clients",
        clients,
        *(() if config else ("--save", "")),
        "--dir",
        str(folder),
        *more,
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            ours = {"ssl_certfile": str(pems / "ours.pem"), "ssl_keyfile": str(pems / "ours.key")}
            client = Redis(port=port, ssl=True, ssl_cert_reqs="none", ssl_check_hostname=False, **ours)  # type: ignore[arg-type]
            for _ in range(500):
                try:
                    client.ping()
                    break
                except RedisError:
                    time.sleep(0.02)
            client.close()
            yield port
        finally:
            process.terminate()


def settings_of(port: int, host: str = "localhost", options: str = "", **more: object) -> Settings:
    url = f"rediss://{host}:{port}/0{options}"
    return Settings(redis_url=url, store_url="none", redis_timeout_ms=5_000, **more)  # type: ignore[arg-type]


async def served(runtime: Runtime) -> None:
    """Waits until it serves: a busy machine can be slower with TLS than the time for a connection."""
    async with asyncio.timeout(20):
        while await runtime.engine.faults():
            await asyncio.sleep(0.05)


async def refused_at_start(settings: Settings, words: str) -> None:
    """The start is refused, in one line with these words."""

    async def start() -> None:
        runtime = Runtime(settings)
        try:
            await runtime.start()
        finally:
            await runtime.close()

    told = await denial_of(start)
    assert re.search(words, told) and told.startswith("METER_REDIS_URL: ") and len(told.splitlines()) == 1


async def refused(settings: Settings, words: str) -> None:
    """So is arq's."""
    await refused_at_start(settings, words)
    assert re.search(words, await denial_of(lambda: check_queue(settings)))


async def denial_of(attempt: Callable[[], Awaitable[None]]) -> str:
    """Why it is refused; tried again while a busy machine is slower with TLS than the time for a connection."""
    async with asyncio.timeout(20):
        while True:
            try:
                await attempt()
            except ConfigError as error:
                return str(error)
            except RedisUnavailable:
                pass


async def test_x9_the_right_certificate_is_taken_by_everything(pems: Path, tmp_path: Path) -> None:
    with serving(tmp_path, pems, "right") as port:
        for host in ("localhost", "127.0.0.1"):
            settings = settings_of(port, host, redis_ca_file=str(pems / "ca.pem"))
            async with Meter(settings) as meter:
                await meter.add("u", 5)
                assert await meter.deduct("u", 1)
            await check_queue(settings)
            pool = queue_pool(settings)
            assert await pool.ping()
            await pool.aclose(close_connection_pool=True)


async def test_x9_a_certificate_for_another_name_is_refused(pems: Path, tmp_path: Path) -> None:
    with serving(tmp_path, pems, "wrong") as port:
        await refused(settings_of(port, redis_ca_file=str(pems / "ca.pem")), "for another name")
        await refused(settings_of(port, "127.0.0.1", redis_ca_file=str(pems / "ca.pem")), "for another name")
        for options in ("?ssl_check_hostname=false", "?ssl_cert_reqs=none"):  # whoever asks for it in so many words
            async with Runtime(settings_of(port, options=options, redis_ca_file=str(pems / "ca.pem"))) as runtime:
                await served(runtime)


async def test_x9_a_ca_that_nobody_knows_is_refused(pems: Path, tmp_path: Path) -> None:
    with serving(tmp_path, pems, "right") as port:
        await refused(settings_of(port), "METER_REDIS_CA_FILE")
        await refused(settings_of(port, redis_ca_file=str(pems / "other-ca.pem")), "METER_REDIS_CA_FILE")


async def test_x9_a_client_certificate_is_shown_where_it_is_wanted(pems: Path, tmp_path: Path) -> None:
    ca = str(pems / "ca.pem")
    ours = {"redis_cert_file": str(pems / "ours.pem"), "redis_key_file": str(pems / "ours.key")}
    with serving(tmp_path, pems, "right", clients="yes") as port:
        async with Runtime(settings_of(port, redis_ca_file=ca, **ours)) as runtime:
            await served(runtime)
        await check_queue(settings_of(port, redis_ca_file=ca, **ours))
        await refused(settings_of(port, redis_ca_file=ca), "client certificate")


async def test_x9_plain_where_tls_is_spoken_is_told(pems: Path, tmp_path: Path) -> None:
    with serving(tmp_path, pems, "right") as port:
        settings = Settings(redis_url=f"redis://localhost:{port}/0", store_url="none", redis_timeout_ms=5_000)
        runtime = Runtime(settings)
        with pytest.raises(ConfigError, match="rediss://, not redis://"):
            await runtime.start()
        await runtime.close()


def test_x9_the_commands_end_with_one_line_and_2(pems: Path, tmp_path: Path) -> None:
    with serving(tmp_path, pems, "wrong") as port:
        url, ca = f"rediss://localhost:{port}/0", str(pems / "ca.pem")
        env = environment(redis_url=url, redis_ca_file=ca, store_url="none", port=free_port(), redis_timeout_ms=5_000)
        for command in ("serve", "worker"):
            run = run_meter(command, cwd=tmp_path, env=env)
            assert run.returncode == 2 and "Traceback" not in run.stderr
            (line,) = [line for line in run.stderr.splitlines() if "certificate" in line]
            assert "for another name" in line


def test_x9_a_file_that_cannot_be_used_is_told_by_its_setting(pems: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    absent, empty = str(tmp_path / "absent.pem"), str(tmp_path / "empty")
    for files, words in (
        ({"redis_ca_file": absent}, "METER_REDIS_CA_FILE=.*: No such file"),
        ({"redis_ca_file": empty}, "METER_REDIS_CA_FILE=.*: no PEM file"),
        ({"redis_cert_file": str(pems / "ours.pem")}, "METER_REDIS_CERT_FILE=.*: no PEM file"),
        (
            {"redis_cert_file": str(pems / "ours.pem"), "redis_key_file": str(pems / "right.key")},
            "METER_REDIS_CERT_FILE=.*: no PEM file",
        ),
        ({"redis_key_file": str(pems / "ours.key")}, "METER_REDIS_CERT_FILE is missing"),
    ):
        with pytest.raises(ConfigError, match=words):
            tls_of(load_settings(redis_url="rediss://h", **files))
    with pytest.raises(ConfigError, match="for rediss:// only"):
        tls_of(load_settings(redis_url="redis://h", redis_ca_file=str(pems / "ca.pem")))
    assert tls_of(load_settings(redis_url="redis://h")) == NO_TLS_FILES


def test_x9_the_name_is_checked_whatever_the_clients_default_is() -> None:
    """redis-py 5.3.1 takes any name, 6 and later do not."""
    assert TlsFiles().options("rediss://h")["ssl_check_hostname"] is True
    assert TlsFiles().options("redis://h") == {}


async def test_x24_every_node_of_a_cluster_proves_who_it_is(pems: Path, tmp_path: Path) -> None:
    """By the name that nodes announce: the address that they would else be known by is in no certificate."""
    bus = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--tls-cluster", "yes")
    named = ("--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", "hostname")
    with serving(tmp_path, pems, "right", *bus, *named) as port:
        client: Any = Redis(port=port, ssl=True, ssl_cert_reqs="none", ssl_check_hostname=False)
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        url = f"rediss+cluster://localhost:{port}"
        settings = settings_of(port, redis_ca_file=str(pems / "ca.pem"), partitions=3).model_copy(
            update={"redis_url": url}
        )
        async with Runtime(settings) as runtime:
            await served(runtime)
        await refused_at_start(settings.model_copy(update={"redis_ca_file": ""}), "METER_REDIS_CA_FILE")
        client.config_set("cluster-preferred-endpoint-type", "ip")
        client.execute_command("CONFIG", "SET", "cluster-announce-ip", "127.0.0.2")
        await refused_at_start(settings, "its certificate is for another name")
        client.close()


async def test_x25_sentinels_prove_who_they_are_too(pems: Path, tmp_path: Path) -> None:
    (tmp_path / "sentinel").mkdir()
    replication = ("--tls-replication", "yes")
    with serving(tmp_path, pems, "right", *replication) as port:
        file = tmp_path / "sentinel.conf"
        file.write_text(
            f"sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\nsentinel monitor m localhost {port} 1\n"
        )
        sentinel = ("--sentinel", *replication)
        with serving(tmp_path / "sentinel", pems, "right", *sentinel, config=file) as sentinel_port:
            url = f"rediss+sentinel://localhost:{sentinel_port}/m/0"
            settings = settings_of(port, redis_ca_file=str(pems / "ca.pem")).model_copy(update={"redis_url": url})
            async with Runtime(settings) as runtime:
                await served(runtime)
            await check_queue(settings)
            await refused(settings.model_copy(update={"redis_ca_file": ""}), "METER_REDIS_CA_FILE")
