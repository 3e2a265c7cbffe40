"""Who tries keys: where too many that there are not came from one address, no further one from there gets to Redis.

A key that was let in here before is looked up all the same, so that who guesses shuts nobody out who has one already;
what a key may do is Redis' word each time. Of `/gateway/authorize` that is the gateway's own key, never its clients'.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from meter.api.refusals import DETAILS
from meter.api_key import ApiKey, read_api_key
from meter.failures import Failures
from meter.http.rendered import Answered, Rendered, problem

LET_IN_MAX = 10_000
"""Keys that are remembered as let in, those that came last."""


def too_many(wait_ms: int, detail: str) -> Rendered:
    """The answer to who has to wait before trying again."""
    refused = problem("rate-limited", detail, f'"retry_after_ms":{wait_ms}')
    return refused._replace(headers=((b"retry-after", str(-(-wait_ms // 1000)).encode()),))


class KeyAttempts:
    """`most`: how many keys that there are not may come from one address in a minute; 0: any number."""

    def __init__(self, most: int) -> None:
        self._failures = Failures(most) if most else None
        self._let_in: OrderedDict[str, None] = OrderedDict()

    def read(self, source: str, text: str) -> ApiKey:
        """A key that may be one of this deployment. Raises `Answered`."""
        key = read_api_key(text)
        known = key is not None and key.hash in self._let_in
        wait_ms = 0 if known or self._failures is None else self._failures.wait_ms(source, _now_ms())
        if wait_ms:
            raise Answered(too_many(wait_ms, "Too many API keys that there are not came from this address."))
        if key is None:
            raise self.refused(source)
        return key

    def refused(self, source: str, key: ApiKey | None = None) -> Answered:
        """Counts a key that there is not; the answer to it."""
        if key is not None:
            self._let_in.pop(key.hash, None)
        if self._failures is not None:
            self._failures.failed(source, _now_ms())
        return Answered(problem("invalid-key", DETAILS["invalid-key"]))

    def let_in(self, key: ApiKey) -> None:
        """Takes note of a key that works."""
        self._let_in[key.hash] = None
        self._let_in.move_to_end(key.hash)
        if len(self._let_in) > LET_IN_MAX:
            self._let_in.popitem(last=False)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
