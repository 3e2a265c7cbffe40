"""Signatures of Standard Webhooks, by that specification's own library: one for each secret that is valid now."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime

from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from meter.store.rows import WebhookRow

SECRET_BYTES = 32
PREFIX = "whsec_"


def new_secret() -> str:
    """A secret as receivers configure it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def valid_secrets(row: WebhookRow, at_ms: int) -> list[str]:
    """The secrets that an endpoint's messages are signed with at a time: the newest first."""
    return [row.secret, *(secret for secret, _ in still_valid(row, at_ms))]


def still_valid(row: WebhookRow, at_ms: int) -> list[tuple[str, int]]:
    """The rotated secrets that still sign at a time, with the time until which they do."""
    old = row.old_secrets if isinstance(row.old_secrets, list) else []
    pairs = [pair for pair in old if isinstance(pair, list) and len(pair) == 2]
    return [(str(secret), until_ms) for secret, until_ms in pairs if isinstance(until_ms, int) and at_ms < until_ms]


def signed_headers(message_id: str, timestamp_seconds: int, body: bytes, keys: Iterable[str]) -> dict[str, str]:
    """The three headers. Raises `ValueError` for a key that is no secret."""
    at, text = datetime.fromtimestamp(timestamp_seconds, UTC), body.decode()
    try:
        signatures = [Webhook(key).sign(message_id, at, text) for key in keys]
    except EmptyWebhookSecretError:
        raise ValueError("an empty secret") from None
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_seconds),
        "webhook-signature": " ".join(signatures),
    }
