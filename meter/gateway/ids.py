"""The reservation of a request: one id for a user's request id, however often and wherever it is asked for.

Made of both, so that nobody reaches the hold of another user by a request id that he saw or chose; one sidecar knows
what another one made, and nothing is stored for it.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import blake2b

from meter.engine.answers import NOT_FOUND, SUBJECT, Operation, subject_of, word_of

NAMES_MAX = 10_000
"""How many requests' other names are remembered while the secret is being changed."""


def reservation_id_of(user_id: str, request_id: str, *, place: str, secret: bytes) -> str:
    """128 bits over user and request; `q` and the partition in front (`Engine.place_of`)."""
    digest = blake2b(f"{user_id}\x1f{request_id}".encode(), digest_size=16, key=secret).digest()
    return f"q{place}_{urlsafe_b64encode(digest)[:22].decode()}"


class ReservationNames:
    """The ids of requests' reservations under a secret, and, while it is being changed, under another one, whose
    reservations are settled, too.
    """

    def __init__(self, place_of: Callable[[str], str], secret: str, other: str = "") -> None:
        """`place_of` is the engine's; `other` "": the secret is not being changed."""
        self._place_of = place_of
        self._secret, self._other = secret.encode(), other.encode()
        self._others: dict[str, str] = {}

    def of(self, user_id: str, request_id: str) -> str:
        """The reservation of a user's request."""
        place = self._place_of(user_id)
        name = reservation_id_of(user_id, request_id, place=place, secret=self._secret)
        if self._other:
            self._others[name] = reservation_id_of(user_id, request_id, place=place, secret=self._other)
            if len(self._others) > NAMES_MAX:
                del self._others[next(iter(self._others))]
        return name

    def by_the_other(self, settlement: Operation, line: str) -> Operation | None:
        """The settlement of the reservation that the request has under the other secret, where there was none under the
        first; None where that does not help.
        """
        if not self._other or word_of(line) != NOT_FOUND.word:
            return None
        other = self._others.pop(subject_of(settlement), None)
        return None if other is None else (*settlement[:SUBJECT], other, *settlement[SUBJECT + 1 :])
