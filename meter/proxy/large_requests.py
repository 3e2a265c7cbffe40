"""Large requests: what all of them together may keep of this process's memory while they are read."""

from __future__ import annotations

from collections import Counter

USER_SHARE = 4
"""One user may have this part of all the memory, and one request of the largest size at any rate."""


class LargeRequests:
    """Counts the bytes of requests that are larger than what is read of every request. One for a process."""

    def __init__(self, bytes_max: int, request_bytes_max: int) -> None:
        self._bytes_max = max(bytes_max, request_bytes_max)
        self._user_bytes_max = max(self._bytes_max // USER_SHARE, request_bytes_max)
        self._of_users: Counter[str] = Counter()
        self._size = 0

    def claim(self, user_id: str) -> Claim:
        """What one request of a user may keep: nothing yet."""
        return Claim(self, user_id)

    def grow(self, user_id: str, size: int) -> bool:
        """Takes so many bytes more for a user, where they are there."""
        if self._size + size > self._bytes_max or self._of_users[user_id] + size > self._user_bytes_max:
            return False
        self._size += size
        self._of_users[user_id] += size
        return True

    def shrink(self, user_id: str, size: int) -> None:
        """Gives them back."""
        self._size -= size
        self._of_users[user_id] -= size
        if not self._of_users[user_id]:
            del self._of_users[user_id]


class Claim:
    """`with` it: what a request has taken is given back at its end."""

    def __init__(self, requests: LargeRequests, user_id: str) -> None:
        self._requests = requests
        self._user_id = user_id
        self._size = 0

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        if self._size:
            self._requests.shrink(self._user_id, self._size)
            self._size = 0

    def reach(self, size: int) -> bool:
        """Has at least so many bytes, where they are there."""
        more = size - self._size
        if more <= 0:
            return True
        if not self._requests.grow(self._user_id, more):
            return False
        self._size = size
        return True
