"""Who is logged in: a random cookie, of which Redis has the hash beside the key that it stands for.

Redis never learns the text of a key or of a cookie, and each page asks again what the key may do, so that a key that is
revoked ends its logins. A login ends an hour after its last page, and 12 hours after it began.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from hashlib import sha256

from meter.api_key import ApiKey
from meter.engine.redis import RedisGateway
from meter.keys import console_key

IDLE_MS, WHOLE_MS = 3_600_000, 12 * 3_600_000
SEEN_MS = 60_000
"""How often a login is noted to be in use."""
FAILURES_MAX, FAILURES_MS = 5, 60_000
_ADDRESSES_MAX = 10_000


def new_secret() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def token_of(cookie: str) -> str:
    """What a form of this login brings back: only who has been sent a page knows it, and no script reads the cookie."""
    return sha256(f"form {cookie}".encode()).hexdigest()


class Logins:
    """The logins of a deployment, in one hash of Redis."""

    def __init__(self, redis: RedisGateway, key_prefix: str) -> None:
        self._redis = redis
        self._key = console_key(key_prefix)

    async def begin(self, key: ApiKey, now_ms: int) -> str:
        """The cookie of a new login; logins that are over go. Raises `RedisUnavailable`."""
        found = await self._redis.fields_of(self._key)
        over = [name for name, text in found.items() if _live(text, now_ms) is None]
        if over:
            await self._redis.drop_fields(self._key, over)
        cookie = new_secret()
        await self._redis.put_field(self._key, _name(cookie), _text(key, now_ms, now_ms))
        return cookie

    async def find(self, cookie: str, now_ms: int) -> ApiKey | None:
        """The key that a cookie stands for; None where its login is over. Raises `RedisUnavailable`."""
        text = await self._redis.field(self._key, _name(cookie))
        live = None if text is None else _live(text, now_ms)
        if live is None:
            return None
        key, began_ms, seen_ms = live
        if now_ms - seen_ms > SEEN_MS:
            await self._redis.put_field(self._key, _name(cookie), _text(key, began_ms, now_ms))
        return key

    async def end(self, cookie: str) -> None:
        """Logs out. Raises `RedisUnavailable`."""
        await self._redis.drop_fields(self._key, [_name(cookie)])


class Failures:
    """How often an address has failed to log in to this process within the last minute."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._failed: dict[str, list[int]] = {}

    def are_many(self, address: str) -> bool:
        """Whether the address has to wait."""
        return len(self._lately(address)) >= FAILURES_MAX

    def count(self, address: str) -> None:
        """One more."""
        if len(self._failed) >= _ADDRESSES_MAX:
            self._failed = {one: lately for one in self._failed if (lately := self._lately(one))}
        self._failed.setdefault(address, []).append(self._now_ms())

    def _lately(self, address: str) -> list[int]:
        since = self._now_ms() - FAILURES_MS
        found = [at for at in self._failed.get(address, []) if at > since]
        if address in self._failed:
            self._failed[address] = found
        return found


def _name(cookie: str) -> str:
    return sha256(cookie.encode("utf-8", "surrogateescape")).hexdigest()


def _text(key: ApiKey, began_ms: int, seen_ms: int) -> str:
    return f"{key.key_id} {key.hash} {key.root} {began_ms} {seen_ms}"


def _live(text: bytes, now_ms: int) -> tuple[ApiKey, int, int] | None:
    key_id, hashed, root, began, seen = text.decode().split(" ")
    if now_ms - int(seen) >= IDLE_MS or now_ms - int(began) >= WHOLE_MS:
        return None
    return ApiKey(key_id, hashed, int(root)), int(began), int(seen)
