"""C17: a URL may be in a file, whose user and password are read again at each reconnect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from meter.config import load_settings
from meter.engine.redis_url import ReadAgain, without_credentials
from meter.errors import ConfigError
from meter.log import without_password
from meter.redis_urls import Address, place_of
from meter.runtime import Runtime
from meter.setting_files import url_again
from meter.worker.queue import check_queue, queue_pool
from tests.servers import embedded_server


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A server whose passwords can be changed."""
    with embedded_server(tmp_path_factory.mktemp("rotated")) as server, Redis.from_url(server.url) as client:
        yield client


def test_c17_a_url_is_read_from_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("redis://u:p@h:1/0\n")
    for name in ("REDIS_URL", "QUEUE_URL"):
        monkeypatch.delenv(f"METER_{name}", raising=False)
        monkeypatch.setenv(f"METER_{name}_FILE", str(file))
    settings = load_settings()
    assert (settings.redis_url, settings.arq_url) == ("redis://u:p@h:1/0", "redis://u:p@h:1/0")
    given = load_settings(redis_url="redis://other")  # by who starts it: `meter dev` has a Redis of its own
    assert (given.redis_url, given.redis_url_file) == ("redis://other", "")
    monkeypatch.setenv("METER_REDIS_URL", "redis://h")
    with pytest.raises(ConfigError, match="METER_REDIS_URL and METER_REDIS_URL_FILE are both set"):
        load_settings()


@pytest.mark.parametrize(
    ("text", "words"),
    [(None, "No such file"), ("", "it is empty"), ("http://u:hunter2@h", "begins with redis://")],
)
def test_c17_a_file_that_says_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, words: str
) -> None:
    file = tmp_path / "url"
    if text is not None:
        file.write_text(text)
    monkeypatch.delenv("METER_REDIS_URL", raising=False)
    monkeypatch.setenv("METER_REDIS_URL_FILE", str(file))
    with pytest.raises(ConfigError, match=f"^METER_REDIS_URL.*{words}") as raised:
        load_settings()
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("name", ["gateway_secret", "code_secret"])
def test_every_secret_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    """Siblings of C17: what is no URL."""
    file = tmp_path / "secret"
    file.write_text("hunter2\n")
    monkeypatch.setenv(f"METER_{name.upper()}_FILE", str(file))
    assert getattr(load_settings(), name) == "hunter2"
    assert getattr(load_settings(**{name: "mine"}), name) == "mine"
    monkeypatch.setenv(f"METER_{name.upper()}", "other")
    with pytest.raises(ConfigError, match="are both set"):
        load_settings()
    file.write_text("s" * 600)
    monkeypatch.delenv(f"METER_{name.upper()}")
    with pytest.raises(ConfigError, match=f"^METER_{name.upper()}") as raised:
        load_settings()
    assert "sss" not in str(raised.value)


def test_c17_what_auth_wants_is_taken_from_the_url() -> None:
    for url, told in (
        ("redis://user:p%40ss@h/0", ("user", "p@ss")),
        ("redis://:pw@h/0", ("pw",)),
        ("redis://h/0", ()),
        ("unix://u:p@/run/redis.sock", ("u", "p")),
    ):
        assert ReadAgain(lambda url=url: url).get_credentials() == told  # type: ignore[misc]
        assert "p@" not in without_credentials(url) and "pw" not in without_credentials(url)


def test_c17_a_file_that_is_being_written_leaves_what_was_known(tmp_path: Path) -> None:
    assert url_again("redis://known", str(tmp_path / "absent")) == "redis://known"
    (tmp_path / "empty").write_text("")
    assert url_again("redis://known", str(tmp_path / "empty")) == "redis://known"


async def test_c17_a_rotated_password_heals_at_the_reconnect(admin: Redis, tmp_path: Path) -> None:
    run: Any = admin.execute_command
    port, file = admin.get_connection_kwargs()["port"], tmp_path / "url"

    def rotate(password: str) -> None:
        run("ACL", "SETUSER", "m", "reset", "on", "~*", "+@all", f">{password}")
        run("CLIENT", "KILL", "USER", "m")

    rotate("first")
    file.write_text(f"redis://m:first@127.0.0.1:{port}/0")
    settings = load_settings(redis_url_file=str(file), store_url="none", redis_timeout_ms=5_000)
    async with Runtime(settings) as runtime:
        pool = queue_pool(settings)
        assert await pool.ping()
        rotate("second")
        assert await runtime.engine.faults() != []
        file.write_text(f"redis://m:second@127.0.0.1:{port}/0")
        async with asyncio.timeout(10):
            while await runtime.engine.faults():
                await asyncio.sleep(0.02)
        await runtime.redis.ping()
        with suppress(RedisConnectionError):  # the one that was killed, which redis-py 8 does not look at first
            await pool.ping()
        assert await pool.ping()
        await pool.aclose(close_connection_pool=True)


async def test_c17_the_queue_has_a_password_of_its_own(admin: Redis, tmp_path: Path) -> None:
    run: Any = admin.execute_command
    port, file = admin.get_connection_kwargs()["port"], tmp_path / "url"

    def rotate(password: str) -> None:
        run("ACL", "SETUSER", "q", "reset", "on", "~*", "+@all", f">{password}")
        run("CLIENT", "KILL", "USER", "q")
        file.write_text(f"redis://q:{password}@127.0.0.1:{port}/0")

    rotate("first")
    settings = load_settings(redis_url="redis://127.0.0.1:1/0", queue_url_file=str(file))
    pool = queue_pool(settings)
    assert await pool.ping()
    rotate("second")
    with suppress(RedisConnectionError):
        await pool.ping()
    assert await pool.ping()
    await check_queue(settings)
    await pool.aclose(close_connection_pool=True)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("valkey://h", "redis://host:6379/0"),
        ("redis+unix:///run/redis.sock", "unix:///path"),
        ("redis+sentinel://h:26379", "told which master"),
        ("redis+sentinel://h:26379/mymaster/zero", "no number of a database"),
        ("redis+cluster://a:1,/0", "no host and port"),
        ("redis+cluster://a,b/1", "the database 0 only"),
        ("valkey-cluster://h", "redis.cluster://host:6379"),
        ("redis://a:1,b:2/0", r"several hosts, which are redis\+cluster://"),
        ("redis://h/zero", "no number of a database"),
        ("redis://h/0?decode_responses=true", "the option 'decode_responses' is not taken"),
        ("redis://h/0?protocol=3", "the option 'protocol' is not taken"),
    ],
)
def test_u6_a_url_that_would_mean_something_else_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^METER_REDIS_URL=.*({words})"):
        load_settings(redis_url=url)


def test_u6_an_option_with_a_wrong_value_is_told_at_the_start() -> None:
    for option in ("socket_timeout=soon", "ssl_cert_reqs=perhaps"):
        with pytest.raises(ConfigError, match=r"^METER_REDIS_URL: "):
            Runtime(load_settings(redis_url=f"rediss://h/0?{option}", store_url="none"))


@pytest.mark.parametrize(
    ("url", "server", "hosts"),
    [
        ("redis+cluster://u:p@a,b:7000,[::1]:7001", "redis://u:p@a:6379/", (("a", 6379), ("b", 7000), ("::1", 7001))),
        ("rediss-cluster://a:1/0?ssl_cert_reqs=none", "rediss://a:1/?ssl_cert_reqs=none", (("a", 1),)),
        ("redis+sentinel://:p@s,t:2/main/3?sentinel_password=x", "redis://:p@s:26379/3", (("s", 26379), ("t", 2))),
        ("rediss+sentinel://s/main", "rediss://s:26379/", (("s", 26379),)),
    ],
)
def test_u6_a_url_with_several_hosts_is_read(url: str, server: str, hosts: tuple[Address, ...]) -> None:
    place = place_of(url)
    assert (place.server(), place.hosts) == (server, hosts)
    assert load_settings(redis_url=url).redis_url == url


def test_u6_the_password_of_sentinels_is_not_shown() -> None:
    url = "redis+sentinel://:hunter1@s/main?sentinel_password=hunter2&sentinel_username=u"
    assert without_password(url) == "redis+sentinel://…@s/main?sentinel_password=…&sentinel_username=u"
    with pytest.raises(ConfigError) as raised:
        load_settings(redis_url=url + "&no=1")
    assert "hunter" not in str(raised.value)
