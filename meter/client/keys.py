"""The Python API of API keys, a part of `Credits` in meter/client/credits.py."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from meter.client.calls import Calls
from meter.contract.answers import Refusal
from meter.contract.keys import IssuedKey, KeyPage, ListedKey


class KeyCalls(Calls):
    """Keys that users and operators are known by. Every method raises `Unavailable` when the call was not decided."""

    async def create_key(
        self,
        user_id: str | None = None,
        *,
        name: str | None = None,
        scopes: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> IssuedKey | Refusal:
        """Makes a key of a path; without a user_id an operator's, which names its scopes. `key` of the answer is its
        text, which nobody is told again.
        """
        body = {"user_id": user_id, "name": name, "scopes": scopes, "models": models, "expires_at": expires_at}
        return await self._call("create_key", IssuedKey, body=body, key=idempotency_key)

    async def keys(self, user_id: str | None = None, *, limit: int = 50, cursor: str = "") -> KeyPage | Refusal:
        """A page of keys, of one user or of all."""
        query = {"limit": str(limit), "cursor": cursor, **({} if user_id is None else {"user_id": user_id})}
        return await self._call("keys", KeyPage, query=query)

    async def change_key(
        self,
        key_id: str,
        *,
        name: str | None = None,
        scopes: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        expires_at: datetime | None = None,
        idempotency_key: str | None = None,
    ) -> ListedKey | Refusal:
        """Changes what a key may do; what is not given stays."""
        body = {"name": name, "scopes": scopes, "models": models, "expires_at": expires_at}
        path = {"key_id": key_id}
        return await self._call("change_key", ListedKey, path=path, body=body, key=idempotency_key)

    async def rotate_key(
        self, key_id: str, *, overlap_seconds: float = 0, idempotency_key: str | None = None
    ) -> IssuedKey | Refusal:
        """Makes a new key of the same path; the old one works for so long beside it."""
        body, path = {"overlap_seconds": overlap_seconds}, {"key_id": key_id}
        return await self._call("rotate_key", IssuedKey, path=path, body=body, key=idempotency_key)

    async def revoke_key(
        self, key_id: str, *, reason: str | None = None, idempotency_key: str | None = None
    ) -> ListedKey | Refusal:
        """Ends a key: the very next call with it is refused."""
        body, path = {"reason": reason}, {"key_id": key_id}
        return await self._call("revoke_key", ListedKey, path=path, body=body, key=idempotency_key)
