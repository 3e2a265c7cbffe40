"""The reservation of a request: one id for a user's request id, however often and wherever it is asked for.

Made of both, so that nobody reaches the hold of another user by a request id that he saw or chose; one sidecar knows
what another one made, and nothing is stored for it.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import blake2b


def reservation_id_of(user_id: str, request_id: str, *, place: str, secret: bytes) -> str:
    """128 bits over user and request; `q` and the partition in front (`Engine.place_of`)."""
    digest = blake2b(f"{user_id}\x1f{request_id}".encode(), digest_size=16, key=secret).digest()
    return f"q{place}_{urlsafe_b64encode(digest)[:22].decode()}"
