"""The channels of `METER_NOTIFY`: a log line, a Redis stream, and whatever Apprise speaks (e-mail, SMS, chat, push)."""

from __future__ import annotations

from typing import Protocol

import orjson

from meter.alerts.notification import AsyncNotificationQueue, NotDelivered, Notification
from meter.engine.redis import RedisGateway
from meter.errors import ConfigError
from meter.log import logger

STREAM_MAX = 100_000
"""Notifications that the stream keeps, about."""

_APPRISE = "apprise:"
_STREAM = "stream:"

_log = logger("meter.alerts")


class LogQueue:
    """One line of the worker's log for each notification."""

    async def enqueue(self, notification: Notification) -> None:
        _log.info("alert", id=notification.notification_id, body=orjson.loads(notification.body))


class StreamQueue:
    """Adds notifications to a Redis stream, for consumers of the operator's own."""

    def __init__(self, redis: RedisGateway, key: str) -> None:
        self._redis = redis
        self._key = key

    async def enqueue(self, notification: Notification) -> None:
        members: dict[str, str | bytes] = {
            "id": notification.notification_id,
            "kind": notification.kind,
            "body": notification.body,
        }
        await self._redis.add_to_stream(self._key, members, STREAM_MAX)


class AppriseQueue:
    """Sends by Apprise. Needs the extra `notify`."""

    def __init__(self, url: str) -> None:
        try:
            import apprise  # noqa: PLC0415 - an extra
        except ImportError:
            raise ConfigError("METER_NOTIFY: apprise needs `pip install meter-sidecar[notify]`") from None
        self._apprise: _Apprise = apprise.Apprise()
        if not self._apprise.add(url):
            raise ConfigError("METER_NOTIFY: Apprise does not understand one of its URLs")

    async def enqueue(self, notification: Notification) -> None:
        title = f"{notification.kind.replace('_', ' ').capitalize()}: {notification.user_id}"
        if not await self._apprise.async_notify(title=title, body=notification.body.decode()):
            raise NotDelivered("Apprise could not send it")


class _Apprise(Protocol):
    def add(self, servers: str) -> bool: ...

    async def async_notify(self, *, title: str, body: str) -> object: ...


def channels_of(words: str, redis: RedisGateway) -> dict[str, AsyncNotificationQueue]:
    """The channels that `METER_NOTIFY` names, by the name that the delivery log has for them. Raises `ConfigError`."""
    found: dict[str, AsyncNotificationQueue] = {}
    for number, word in enumerate(words.split()):
        if word == "log":
            found["log"] = LogQueue()
        elif word.startswith(_STREAM) and len(word) > len(_STREAM):
            found[word[:128]] = StreamQueue(redis, word.removeprefix(_STREAM))
        elif word.startswith(_APPRISE):
            found[f"apprise-{number}"] = AppriseQueue(word.removeprefix(_APPRISE))  # its URL has passwords in it
        else:
            raise ConfigError(f"METER_NOTIFY: {word.partition(':')[0]!r} is not log, stream:KEY or apprise:URL")
    return found
