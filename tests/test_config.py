"""Settings: each from its variable, checked once, and a wrong one told in one line that names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from meter.config import Settings, load_settings, remarks
from meter.errors import ConfigError
from meter.runtime import Runtime


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """None of the machine's own settings."""
    for name in [name for name in os.environ if name.startswith(("METER_", "CREDIT_MONGO_"))]:
        monkeypatch.delenv(name)
    yield


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("METER_PORT", "eighty"),
        ("METER_PORT", ""),
        ("METER_PORT", "65536"),
        ("METER_PORT", "80.5"),
        ("METER_DECIMAL_PLACES", "10"),
        ("METER_DECIMAL_PLACES", "-1"),
        ("METER_PARTITIONS", "0"),
        ("METER_PARTITIONS", "1025"),
        ("METER_KEY_PREFIX", "{x}"),
        ("METER_KEY_PREFIX", ""),
        ("METER_REDIS_URL", "http://127.0.0.1:6379"),
        ("METER_REDIS_URL", "127.0.0.1:6379"),
        ("METER_REDIS_URL", ""),
        ("METER_REDIS_URL", "redis://127.0.0.1:port/0"),
        ("METER_REDIS_URL", "redis://127.0.0.1:99999/0"),
        ("METER_QUEUE_URL", "amqp://queue"),
        ("METER_LATE_COMMIT_GRACE_SECONDS", "-1"),
        ("METER_SWEEP_INTERVAL_SECONDS", "60"),
        ("METER_REDIS_TIMEOUT_MS", "9"),
        ("METER_TEST_CLOCK", "perhaps"),
        ("METER_IDEMPOTENCY_WINDOW_SECONDS", "1"),
        ("METER_BATCH_MAX", "501"),
        ("METER_RESERVATION_TTL_MAX_SECONDS", "299"),
    ],
)
def test_a_wrong_value_is_one_line_with_variable_and_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as raised:
        load_settings()
    message = str(raised.value)
    assert message.startswith(f"{variable}={value!r}: ")
    assert "\n" not in message and "pydantic" not in message and "Value error" not in message
    assert len(message) > len(f"{variable}={value!r}: ") + 5


def test_every_wrong_value_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METER_PORT", "x")
    monkeypatch.setenv("METER_PARTITIONS", "y")
    with pytest.raises(ConfigError, match=r"^METER_PARTITIONS='y': .*; METER_PORT='x': [^;]*$"):
        load_settings()


def test_a_password_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METER_REDIS_URL", "http://admin:hunter2@redis.example/0")
    monkeypatch.setenv("METER_GATEWAY_SECRET", "hunter2" * 10)
    with pytest.raises(ConfigError) as raised:
        load_settings()
    assert "hunter2" not in str(raised.value)
    assert "METER_REDIS_URL='http://…@redis.example/0'" in str(raised.value)


def test_a_grace_under_either_of_its_names_is_told_when_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METER_LATE_COMMIT_GRACE", "soon")
    with pytest.raises(ConfigError, match=r"^METER_LATE_COMMIT_GRACE"):
        load_settings()
    monkeypatch.setenv("METER_LATE_COMMIT_GRACE", "7")
    assert load_settings().late_commit_grace_seconds == 7
    assert load_settings(late_commit_grace_seconds=8).late_commit_grace_seconds == 8


def test_what_is_given_goes_before_the_environment_and_none_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METER_PORT", "1234")
    assert load_settings().port == 1234
    assert load_settings(port=99, host=None).port == 99
    assert load_settings(port=None, host="::1").host == "::1"
    with pytest.raises(ConfigError, match=r"^METER_PORT=-1: "):
        load_settings(port=-1)


@pytest.mark.parametrize(
    "url",
    ["redis://h", "redis://:secret@h:7000/1", "rediss://user:pw@h/0?socket_timeout=1", "unix:///run/redis.sock?db=1"],
)
def test_every_kind_of_redis_url_is_taken(url: str) -> None:
    settings = load_settings(redis_url=url)
    assert (settings.redis_url, settings.arq_url) == (url, url)
    assert load_settings(redis_url=url, queue_url="redis://q").arq_url == "redis://q"


def test_settings_do_not_change_while_they_are_used() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(load_settings(), "port", 1)  # noqa: B010 - mypy knows it too


def test_a_file_that_happens_to_be_there_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("METER_PORT=1\n")
    assert load_settings().port == 8000


@pytest.mark.parametrize(
    ("uri", "database", "url"),
    [
        ("mongodb://h:27017", None, "mongodb://h:27017/credit_management"),
        ("mongodb://h:27017/", "shop", "mongodb://h:27017/shop"),
        ("mongodb://u:p@a,b/own?replicaSet=rs0", None, "mongodb://u:p@a,b/own?replicaSet=rs0"),
        ("mongodb+srv://h/own?w=1", "shop", "mongodb+srv://h/shop?w=1"),
    ],
)
def test_p21_the_seeds_variables_choose_mongodb(
    monkeypatch: pytest.MonkeyPatch, uri: str, database: str | None, url: str
) -> None:
    """P21: CREDIT_MONGO_URI and CREDIT_MONGO_DB, and no METER_STORE_URL."""
    monkeypatch.setenv("CREDIT_MONGO_URI", uri)
    if database is not None:
        monkeypatch.setenv("CREDIT_MONGO_DB", database)
    assert load_settings().store_url == url
    assert remarks(os.environ) == []
    assert load_settings(store_url="none").store_url == "none"
    monkeypatch.setattr("meter.store.connect.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"^CREDIT_MONGO_URI: .*pip install 'meter-sidecar\[mongo\]'"):
        Runtime(load_settings())


@pytest.mark.parametrize("name", ["METER_STORE_URL", "meter_store_url"])
def test_p21_with_both_our_own_wins_and_a_line_says_so(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("CREDIT_MONGO_URI", "mongodb://u:hunter2@h")
    monkeypatch.setenv(name, "none")
    assert load_settings().store_url == "none"
    assert remarks(os.environ) == ["CREDIT_MONGO_URI is not used: METER_STORE_URL is set"]


def test_p21_a_database_without_its_server_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CREDIT_MONGO_DB", "shop")
    assert load_settings().store_url == "sqlite:///.meter/meter.db"
    assert remarks(os.environ) == ["CREDIT_MONGO_DB is not used: CREDIT_MONGO_URI is not set"]


def test_p22_a_variable_that_nobody_reads_is_told_with_the_nearest() -> None:
    """P22: METER_REDIS_ULR."""
    odd = {"METER_REDIS_ULR": "x", "METER_TEST_CLOK": "1", "meter_prot": "1", "METER_QQQ": "", "PATH": "", "METERS": ""}
    assert remarks(odd) == [
        "METER_QQQ is no setting",
        "METER_REDIS_ULR is no setting. Did you mean METER_REDIS_URL?",
        "METER_TEST_CLOK is no setting. Did you mean METER_TEST_CLOCK?",
        "meter_prot is no setting. Did you mean METER_PORT?",
    ]
    read = {f"METER_{name.upper()}": "" for name in Settings.model_fields}
    assert remarks({**read, "meter_port": "1", "METER_LATE_COMMIT_GRACE": "1", "METER_STORE_URL_FILE": "f"}) == []
