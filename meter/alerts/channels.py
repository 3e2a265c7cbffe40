"""The channels of `METER_NOTIFY`: a log line, a Redis stream, whatever Apprise speaks (e-mail, SMS, chat, push), and
classes of one's own (docs/extending.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from inspect import iscoroutinefunction
from typing import Protocol, cast

import orjson

from meter.alerts.notification import AsyncNotificationQueue, NotDelivered, Notification
from meter.engine.redis import RedisGateway
from meter.errors import ConfigError
from meter.extension import attribute, in_a_line, is_attribute, offered, offers
from meter.log import logger

STREAM_MAX = 100_000
"""Notifications that the stream keeps, about."""

ENTRY_POINTS = "meter.channels"
"""The group in which a package offers channels of its own."""

_SETTING = "METER_NOTIFY"
_NAME_MAX_CHARS = 120
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
    """The channels that `METER_NOTIFY` names, by the name that the delivery log has for them. Raises `ConfigError`.

    A name has no argument in it, which may be a password, and is the same after a restart.
    """
    found: dict[str, AsyncNotificationQueue] = {}
    for number, word in enumerate(words.split()):
        name, channel = _channel(word, number, redis)
        found[f"{name[:_NAME_MAX_CHARS]}-{number}" if name in found else name[:_NAME_MAX_CHARS]] = channel
    return found


def _channel(word: str, number: int, redis: RedisGateway) -> tuple[str, AsyncNotificationQueue]:
    if word == "log":
        return "log", LogQueue()
    if word.startswith(_STREAM) and len(word) > len(_STREAM):
        return word, StreamQueue(redis, word.removeprefix(_STREAM))
    if word.startswith(_APPRISE):
        return f"apprise-{number}", AppriseQueue(word.removeprefix(_APPRISE))
    name, _, argument = word.partition(":")
    made_by = offered(_SETTING, ENTRY_POINTS, name)
    if made_by is None:
        name, argument = _attribute_and_argument(word)
        made_by = attribute(_SETTING, name)
    return name, _made(name, made_by, argument)


def _attribute_and_argument(word: str) -> tuple[str, str]:
    module, _, rest = word.partition(":")
    path, _, argument = rest.partition(":")
    if not is_attribute(f"{module}:{path}"):
        known = ", ".join(["log", "stream:KEY", "apprise:URL", "module:attribute", *offers(ENTRY_POINTS)])
        raise ConfigError(f"{_SETTING}: {module!r} is none of {known}")
    return f"{module}:{path}", argument


def _made(name: str, made_by: object, argument: str) -> AsyncNotificationQueue:
    """The channel: an object that is one, or what a class or function makes, of the argument where there is one."""
    try:
        is_maker = isinstance(made_by, type) or not hasattr(made_by, "enqueue")
        made = (made_by(argument) if argument else made_by()) if is_maker and callable(made_by) else made_by
    except Exception as error:
        raise ConfigError(f"{_SETTING}: {name} makes no channel: {in_a_line(error)}") from error
    if not iscoroutinefunction(getattr(made, "enqueue", None)):
        raise ConfigError(f"{_SETTING}: {name} is no channel: it has no `async def enqueue(self, notification)`")
    return cast("AsyncNotificationQueue", made)


async def close_channels(channels: Iterable[AsyncNotificationQueue]) -> None:
    """Closes those that can be: a channel of one's own may have `async def close(self)`."""
    for channel in channels:
        close = getattr(channel, "close", None)
        if not iscoroutinefunction(close):
            continue
        try:
            await close()
        except Exception as error:  # somebody else's code, and the process ends anyway
            _log.warning("a channel cannot be closed", why=f"{type(error).__name__}: {error}")
