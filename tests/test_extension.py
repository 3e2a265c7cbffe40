"""U19: a channel and a store of one's own, by `module:attribute` and by entry points of an installed package."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from meter.alerts.channels import channels_of, close_channels
from meter.alerts.notification import Notification
from meter.config import load_settings
from meter.errors import ConfigError
from meter.in_process import Meter
from meter.store.connect import open_store
from meter.store.memory.store import MemoryStore
from meter.testing import fake_redis
from tests.plans.town import done

NOTE = Notification("msg_1", "low_credits", "u", b"{}")

MODULE = """
from meter.store.memory.store import open_memory

TAKEN = []
CLOSED = []


class Pager:
    def __init__(self, service="nobody"):
        self.service = service

    async def enqueue(self, notification):
        TAKEN.append((self.service, notification.kind))

    async def close(self):
        CLOSED.append(self.service)


class Inner:
    Pager = Pager


def pager_of(service):
    return Pager("by function " + service)


READY = Pager("ready")


class Silent:
    def enqueue(self, notification):
        pass


def fails(*_, **__):
    raise RuntimeError("no such\\nthing")


def open_mine(url, *, timeout_seconds):
    return open_memory("memory://" + url.partition("://")[2], timeout_seconds=timeout_seconds)


def open_nothing(url, *, timeout_seconds):
    return Silent()
"""

ENTRY_POINTS = """
[meter.channels]
pager = my_plugin:Pager
broken = my_plugin:Absent

[meter.stores]
mine = my_plugin:open_mine
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """A package with entry points, installed in a folder of its own."""
    (tmp_path / "my_plugin.py").write_text(MODULE)
    info = tmp_path / "my_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_plugin", raising=False)
    return importlib.import_module("my_plugin")


@pytest.mark.parametrize(
    ("words", "name", "service"),
    [
        ("my_plugin:Pager:on-call", "my_plugin:Pager", "on-call"),
        ("my_plugin:Pager", "my_plugin:Pager", "nobody"),
        ("my_plugin:Pager:https://u:secret@host/x", "my_plugin:Pager", "https://u:secret@host/x"),
        ("my_plugin:Inner.Pager:x", "my_plugin:Inner.Pager", "x"),
        ("my_plugin:pager_of:x", "my_plugin:pager_of", "by function x"),
        ("my_plugin:READY", "my_plugin:READY", "ready"),
        ("pager:on-call", "pager", "on-call"),
        ("pager", "pager", "nobody"),
    ],
)
async def test_a_channel_of_ones_own(plugin: object, words: str, name: str, service: str) -> None:
    channels = channels_of(f"log {words}", fake_redis())
    assert list(channels) == ["log", name]
    await channels[name].enqueue(NOTE)
    assert plugin.TAKEN[-1] == (service, "low_credits")  # type: ignore[attr-defined]
    await close_channels(channels.values())
    assert plugin.CLOSED[-1] == service  # type: ignore[attr-defined]


async def test_two_of_a_kind_have_names_of_their_own(plugin: object) -> None:
    channels = channels_of("pager:a pager:b log", fake_redis())
    assert list(channels) == ["pager", "pager-1", "log"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("my_plugin:Absent", "METER_NOTIFY: my_plugin:Absent cannot be loaded: AttributeError"),
        ("no_such_module:X", "METER_NOTIFY: no_such_module:X cannot be loaded: ModuleNotFoundError"),
        ("broken", "METER_NOTIFY: the entry point broken of meter.channels fails: AttributeError"),
        ("my_plugin:fails", "METER_NOTIFY: my_plugin:fails makes no channel: RuntimeError"),
        ("my_plugin:Silent", "METER_NOTIFY: my_plugin:Silent is no channel: it has no `async def enqueue"),
        ("my_plugin:TAKEN", "METER_NOTIFY: my_plugin:TAKEN is no channel"),
        ("my_plugin:pager_of", "METER_NOTIFY: my_plugin:pager_of makes no channel: TypeError"),
        ("mail", "METER_NOTIFY: 'mail' is none of log, stream:KEY, apprise:URL, module:attribute, broken, pager"),
        ("https://example.com", "METER_NOTIFY: 'https' is none of"),
    ],
)
async def test_what_is_no_channel_is_refused_in_a_line(plugin: object, words: str, why: str) -> None:
    with pytest.raises(ConfigError) as raised:
        channels_of(words, fake_redis())
    assert str(raised.value).startswith(why)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("url", ["mine://u19-a", "my_plugin:open_mine://u19-b", "my_plugin:open_mine"])
async def test_a_store_of_ones_own_keeps_the_ledger(plugin: object, url: str) -> None:
    store = open_store(url, timeout_seconds=1)
    assert isinstance(store, MemoryStore)
    settings = load_settings(store_url=url, redis_timeout_ms=10_000, test_clock=True)
    async with Meter(settings, fake_redis()) as meter:
        done(await meter.create_plan("Pro", 100, 1, "monthly", plan_id="pro"))
        done(await meter.subscribe("u", "pro"))
        assert done(await meter.balance("u")).available == 100


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://x", "METER_STORE_URL: 'redis' is no known kind of store; there are sqlite, "),
        ("my_plugin:fails://x", "METER_STORE_URL: my_plugin:fails opens no store: RuntimeError"),
        ("my_plugin:TAKEN://x", "METER_STORE_URL: my_plugin:TAKEN is nothing that can be called"),
        (
            "my_plugin:open_nothing://x",
            "METER_STORE_URL: what my_plugin:open_nothing opens is no store, it lacks acc",
        ),
        ("no_such_module:x://y", "METER_STORE_URL: no_such_module:x cannot be loaded"),
    ],
)
def test_what_is_no_store_is_refused_in_a_line(plugin: object, url: str, why: str) -> None:
    with pytest.raises(ConfigError) as raised:
        open_store(url)
    assert str(raised.value).startswith(why), raised.value


def test_the_known_kinds_name_those_that_are_installed(plugin: object) -> None:
    with pytest.raises(ConfigError, match="mine, module:attribute"):
        open_store("nonsense")


def test_a_module_in_the_folder_that_the_process_runs_in_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_us.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "beside_us", raising=False)
    assert list(channels_of("beside_us:Pager", fake_redis())) == ["beside_us:Pager"]
