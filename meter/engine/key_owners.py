"""Whose an API key is. A key names one path and never another one, so that this alone of it may be remembered: whether
it may still do anything is asked with each operation, in the same call (meter/engine/presented.py).
"""

from __future__ import annotations

from collections.abc import Callable

from meter.api_key import ApiKey
from meter.engine.answers import NOTHING, is_ok
from meter.engine.api_keys import IDENTIFY, identify
from meter.engine.batcher import LineDone
from meter.engine.operations import Operation
from meter.errors import MeterError

KEPT_MAX = 20_000

Submit = Callable[[int, Operation, LineDone], None]
"""Runs an operation in a partition."""
OwnerDone = Callable[["str | MeterError | None"], None]
"""Told the user_id, None where there is no such key, or why nobody can say."""

_USER = IDENTIFY.field("user_id")


class KeyOwners:
    """The paths of keys that were seen."""

    def __init__(self, partitions: int, submit: Submit) -> None:
        self._partitions = partitions
        self._submit = submit
        self._known: dict[str, str] = {}

    def find(self, key: ApiKey, done: OwnerDone) -> None:
        """Tells `done` whose the key is, at once where that is known. Raises `Overloaded`."""
        known = self._known.get(key.hash)
        if known is not None:
            done(known)
            return

        def heard(line: str | MeterError) -> None:
            if isinstance(line, MeterError):
                done(line)
            elif not is_ok(line) or (user_id := line.split(" ")[_USER]) == NOTHING:
                done(None)
            else:
                self._remember(key, user_id)
                done(user_id)

        self._submit(key.root % self._partitions, identify(key), heard)

    def _remember(self, key: ApiKey, user_id: str) -> None:
        if len(self._known) >= KEPT_MAX:
            self._known.clear()
        self._known[key.hash] = user_id
