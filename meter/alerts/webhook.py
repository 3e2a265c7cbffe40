"""Webhooks by the Standard Webhooks specification: signed POSTs; only 2xx is success, and no redirect is followed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime

import aiohttp
from yarl import URL

from meter.alerts.guard import connector
from meter.alerts.notification import NotDelivered, Notification
from meter.alerts.signing import signed_headers

TIMEOUT_SECONDS = 20.0
ANSWER_MAX_BYTES = 64 * 1024
RETRY_AFTER_MAX_SECONDS = 86_400.0
URL_MAX_CHARS = 2_000
_ASKS_FOR_PATIENCE = frozenset({429, 503})
_GONE = 410


def url_fault(text: str, *, allow_private: bool) -> str | None:
    """What is wrong with the URL of an endpoint, or None. Where its name leads is checked at each attempt."""
    try:
        url = URL(text)
        port = url.port
    except ValueError:
        return "must be a URL"
    if url.scheme != "https" and not (allow_private and url.scheme == "http"):
        return "must begin with https://"
    if not url.host or port is None:
        return "must name a host"
    if url.user is not None or url.password is not None:
        return "must not contain a user or password"
    if url.fragment or len(text) > URL_MAX_CHARS:
        return f"must have no fragment and at most {URL_MAX_CHARS} characters"
    return None


class WebhookSender:
    """Posts notifications. One session for all endpoints; `close` it."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._session = aiohttp.ClientSession(
            connector=connector(allow_private=allow_private),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def post(self, url: str, secrets: Sequence[str], notification: Notification) -> int:
        """One attempt; answers the HTTP status. Raises `NotDelivered`."""
        fault = url_fault(url, allow_private=self._allow_private)
        if fault is not None:
            raise NotDelivered(f"the URL {fault}")
        headers = {
            **signed_headers(notification.notification_id, int(time.time()), notification.body, secrets),
            "content-type": "application/json",
            "user-agent": "meter-webhooks/1",
        }
        try:
            async with self._session.post(
                url, data=notification.body, headers=headers, allow_redirects=False
            ) as response:
                await response.content.read(
                    ANSWER_MAX_BYTES
                )  # and no more: what is left is dropped with the connection
                status, retry_after = response.status, response.headers.get("retry-after")
                response.close()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise NotDelivered(f"{type(error).__name__}: {error}"[:400]) from error
        if 200 <= status < 300:
            return status
        patience = _seconds(retry_after) if status in _ASKS_FOR_PATIENCE else None
        raise NotDelivered(
            f"the endpoint answered {status}", status=status, retry_after_seconds=patience, gone=status == _GONE
        )

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()


def _seconds(retry_after: str | None) -> float | None:
    """A Retry-After in seconds from now; None when there is none that can be read."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after) if retry_after.isdigit() else _until(retry_after)
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_SECONDS)


def _until(date: str) -> float:
    return parsedate_to_datetime(date).timestamp() - time.time()
