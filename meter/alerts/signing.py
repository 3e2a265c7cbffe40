"""Signatures of Standard Webhooks: HMAC-SHA256 over `id.timestamp.body`, one per secret that is valid now."""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Iterable
from hashlib import sha256

SECRET_BYTES = 32
PREFIX = "whsec_"


def new_secret() -> str:
    """A secret as receivers configure it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed_headers(message_id: str, timestamp_seconds: int, body: bytes, keys: Iterable[str]) -> dict[str, str]:
    """The three headers, with a signature for each secret."""
    content = b"%s.%d.%s" % (message_id.encode(), timestamp_seconds, body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_seconds),
        "webhook-signature": " ".join(f"v1,{_signature(key, content)}" for key in keys),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return base64.b64encode(hmac.new(key, content, sha256).digest()).decode()
