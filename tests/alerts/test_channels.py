"""The channels of METER_NOTIFY."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from fakeredis import FakeRedis, FakeServer

from meter.alerts.channels import channels_of
from meter.alerts.notification import NotDelivered, Notification
from meter.errors import ConfigError
from meter.testing import fake_redis
from tests.alerts.receiver import Receiver

NOTE = Notification("msg_1", "low_credits", "u", b'{"type":"low_credits"}')


async def test_the_log_and_the_stream_take_every_notification(caplog: pytest.LogCaptureFixture) -> None:
    server = FakeServer()
    channels = channels_of("log stream:alerts", fake_redis(server))
    assert list(channels) == ["log", "stream:alerts"]
    with caplog.at_level(logging.INFO, "meter.alerts"):
        for channel in channels.values():
            await channel.enqueue(NOTE)
    assert caplog.messages == ['alert id=msg_1 body={"type":"low_credits"}']
    client: Any = FakeRedis(server=server)
    ((_, members),) = client.xrange("alerts")
    assert members == {b"id": b"msg_1", b"kind": b"low_credits", b"body": NOTE.body}


@pytest.mark.parametrize("words", ["mail", "stream:", "log,stream:x", "https://example.com"])
async def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(ConfigError, match="METER_NOTIFY"):
        channels_of(words, fake_redis())


class FakeApprise:
    """Stands for `apprise.Apprise`: the extra is not part of every installation."""

    sent: list[tuple[str, str]] = []  # noqa: RUF012 - one list for all, read by the test

    def add(self, servers: str) -> bool:
        return servers.startswith("mailto://")

    async def async_notify(self, *, title: str, body: str) -> bool:
        self.sent.append((title, body))
        return len(self.sent) == 1


async def test_apprise_sends_and_says_when_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", SimpleNamespace(Apprise=FakeApprise))
    channels = channels_of("apprise:mailto://user:secret@example.com", fake_redis())
    (name,) = channels
    assert "secret" not in name
    await channels[name].enqueue(NOTE)
    assert FakeApprise.sent == [("Low credits: u", '{"type":"low_credits"}')]
    with pytest.raises(NotDelivered):
        await channels[name].enqueue(NOTE)
    with pytest.raises(ConfigError):
        channels_of("apprise:nonsense", fake_redis())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # what Apprise's plugins import warns of old modules
async def test_apprise_itself_sends_to_a_local_target(hook: Receiver) -> None:
    pytest.importorskip("apprise")
    hook.answers = [(200, {}), (500, {})]
    target = hook.url.replace("http://", "json://")
    channels = channels_of(f"log apprise:{target}", fake_redis())
    await channels["apprise-1"].enqueue(NOTE)
    assert hook.received[0].body["title"] == "Low credits: u"
    assert hook.received[0].body["message"] == NOTE.body.decode()
    with pytest.raises(NotDelivered):
        await channels["apprise-1"].enqueue(NOTE)


async def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigError, match=r"meter-sidecar\[notify\]"):
        channels_of("apprise:mailto://x", fake_redis())
