"""One alert as a target sees it, and the queue that a channel is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import orjson
from pydantic import JsonValue

from meter.amount import AmountScale
from meter.clock import time_text
from meter.errors import MeterError

_UNITS = frozenset({"threshold", "amount", "available", "remaining", "burn_per_day", "used", "limit"})


@dataclass(frozen=True, slots=True)
class Notification:
    """An alert for one target. `notification_id` is the same for every attempt; `body` is the JSON that is sent."""

    notification_id: str
    kind: str
    user_id: str
    body: bytes


class NotDelivered(MeterError):
    """A target did not take a notification; it is tried again.

    `status` is the HTTP status, if it came to one; `retry_after_seconds` what the target asked for; `gone`: the target
    wants no more, ever; `silent`: it gave no answer at all, so the next delivery would fare no better just now.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        retry_after_seconds: float | None = None,
        gone: bool = False,
        silent: bool = False,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.gone = gone
        self.silent = silent


class AsyncNotificationQueue(Protocol):
    """Where notifications go: the extension point. The worker calls it, never a request."""

    async def enqueue(self, notification: Notification) -> None:
        """Takes a notification for good. Raises `NotDelivered`; whatever else it raises counts as that. One that takes
        longer than `CHANNEL_TIMEOUT_SECONDS` of meter/alerts/attempt.py is cancelled.
        """
        ...


@dataclass(slots=True)
class InMemoryNotificationQueue:
    """Keeps everything, for tests."""

    notifications: list[Notification] = field(default_factory=list)

    async def enqueue(self, notification: Notification) -> None:
        self.notifications.append(notification)


def body_of(kind: str, user_id: str, payload: JsonValue, created_at_ms: int, scale: AmountScale) -> bytes:
    """`{type, timestamp, data}` of Standard Webhooks; amounts are exact decimals and times RFC 3339, as on the API.

    Raises `ValueError` for what cannot be told.
    """
    if payload is not None and not isinstance(payload, dict):
        raise ValueError(f"its payload is no JSON object: {str(payload)[:60]!r}")
    data: dict[str, object] = {"user_id": user_id} if user_id else {}
    try:
        for name, value in (payload or {}).items():
            if name in _UNITS and isinstance(value, int) and (payload or {}).get("unit") != "requests":
                data[name] = orjson.Fragment(scale.text(value))
            elif name.endswith("_at_ms") and isinstance(value, int):
                data[name.removesuffix("_ms")] = orjson.Fragment(time_text(value))
            else:
                data[name] = value
        return orjson.dumps({"type": kind, "timestamp": orjson.Fragment(time_text(created_at_ms)), "data": data})
    except (TypeError, OverflowError, OSError) as error:  # no JSON, or no time
        raise ValueError(f"its payload cannot be told: {error}") from error
