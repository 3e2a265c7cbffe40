"""Webhooks by the Standard Webhooks specification: signed POSTs; only 2xx is success, and no redirect is followed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from meter.alerts.endpoint_url import url_faults
from meter.alerts.guard import SystemResolver, connector
from meter.alerts.notification import NotDelivered, Notification
from meter.alerts.signing import signed_headers

TIMEOUT_SECONDS = 20.0
"""From the name to the status of the answer, however slowly its bytes come."""
ANSWER_SECONDS = 1.0
ANSWER_MAX_BYTES = 64 * 1024
"""How long and how much the body of an answer is listened to. It says nothing: the status has decided already."""
RETRY_AFTER_MAX_SECONDS = 86_400.0
_ASKS_FOR_PATIENCE = frozenset({429, 503})
_GONE = 410


class WebhookSender:
    """Posts notifications. One session for all endpoints; `close` it."""

    def __init__(self, *, allow_private: bool, resolver: AbstractResolver | None = None) -> None:
        self._allow_private = allow_private
        self._resolver = resolver or SystemResolver()
        self._session = aiohttp.ClientSession(
            connector=connector(self._resolver, allow_private=allow_private),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def post(self, url: str, secrets: Sequence[str], notification: Notification) -> int:
        """One attempt; answers the HTTP status. Raises `NotDelivered`."""
        faults = url_faults(url, allow_private=self._allow_private)
        if faults:
            raise NotDelivered(f"the URL {faults[0]}")
        try:
            status, retry_after = await self._status(url, _headers(notification, secrets), notification.body)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise NotDelivered(f"{type(error).__name__}: {error}", silent=True) from error
        if 200 <= status < 300:
            return status
        patience = _seconds(retry_after) if status in _ASKS_FOR_PATIENCE else None
        raise NotDelivered(
            f"the endpoint answered {status}", status=status, retry_after_seconds=patience, gone=status == _GONE
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()
        await self._resolver.close()

    async def _status(self, url: str, headers: dict[str, str], body: bytes) -> tuple[int, str | None]:
        """The status of the answer and its Retry-After."""
        plain = URL(url, encoded=True)  # the very text that was checked
        async with self._session.post(plain, data=body, headers=headers, allow_redirects=False) as response:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await response.content.read(ANSWER_MAX_BYTES)
            response.close()
            return response.status, response.headers.get("retry-after")


def _headers(notification: Notification, secrets: Sequence[str]) -> dict[str, str]:
    try:
        signed = signed_headers(notification.notification_id, int(time.time()), notification.body, secrets)
    except ValueError as error:
        raise NotDelivered("the secret of the endpoint cannot be read; rotate it") from error
    return {**signed, "content-type": "application/json", "user-agent": "meter-webhooks/1"}


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After in seconds from now; None when there is none that can be read."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after) if retry_after.isdigit() else _until(retry_after)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_SECONDS)


def _until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()
