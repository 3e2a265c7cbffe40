"""What clients did and were told: their own files, one line before each call and one after it, fsynced.

{"call": id, "attempt": 1, "at": ms, "kind", "user", "method", "path", "body", "key"}   before
{"answer": id, "attempt": 1, "at": ms, "status": 200, "text": "..."}   after; status 0: nobody can say
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCALE = 1_000_000
"""Units of a credit."""


@dataclass
class Attempt:
    """One call. `status` 0: no answer, or none yet."""

    began_ms: int
    ended_ms: int | None = None
    status: int = 0
    text: str = ""

    @property
    def is_known(self) -> bool:
        """Whether the answer says what became of it: done, or refused for good. 202: it is still to be done."""
        return 0 < self.status < 500 and self.status not in (202, 429)

    @property
    def is_done(self) -> bool:
        return 200 <= self.status < 300


@dataclass
class Told:
    """An operation with all its attempts. `key` is empty where the caller sent none, and says it by `reference`."""

    id: str
    kind: str
    user: str
    path: str
    body: dict[str, Any]
    key: str
    attempts: dict[int, Attempt] = field(default_factory=dict)
    method: str = "POST"

    @property
    def done(self) -> list[Attempt]:
        """Attempts that were acknowledged, by their end."""
        return sorted((one for one in self.attempts.values() if one.is_done), key=lambda one: one.ended_ms or 0)

    @property
    def last(self) -> Attempt:
        """The attempt that began last."""
        return max(self.attempts.values(), key=lambda one: one.began_ms)

    @property
    def is_resolved(self) -> bool:
        """Whether the last attempt says what became of it. One without a key cannot be asked again."""
        return not self.key or self.last.is_known

    @property
    def at_least(self) -> int:
        """How often it has to be in the ledger."""
        return 1 if self.done else 0

    @property
    def at_most(self) -> int:
        """How often it may be there: an attempt without an answer may have been the one."""
        if self.done:
            return 1
        if self.key:
            return 0 if self.last.is_known else 1
        return sum(1 for one in self.attempts.values() if not one.is_known)


def read_calls(files: Iterable[Path]) -> dict[str, Told]:
    """Every call of the files, by its id. A last line that was cut off is left out."""
    told: dict[str, Told] = {}
    for file in files:
        for line in file.read_bytes().splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if "call" in said:
                if said["call"] not in told:
                    told[said["call"]] = _new(said)
                told[said["call"]].attempts[said["attempt"]] = Attempt(said["at"])
            else:
                attempt = told[said["answer"]].attempts[said["attempt"]]
                attempt.ended_ms, attempt.status, attempt.text = said["at"], said["status"], said["text"]
    return told


def _new(said: dict[str, Any]) -> Told:
    names = (said["call"], said["kind"], said["user"], said["path"])
    return Told(*names, said["body"], said["key"], method=said["method"])


def operations(calls: dict[str, Told]) -> dict[str, Told]:
    """Every operation of the calls, each of a batch by itself."""
    return {one.id: one for call in calls.values() for one in _single(call)}


def doubtful(calls: dict[str, Told]) -> list[Told]:
    """Calls that have to be asked again: the last answer leaves open what became of them, or an attempt without one
    may have been done after others were refused.
    """
    return [call for call in calls.values() if any(map(_is_doubtful, _single(call)))]


def _is_doubtful(told: Told) -> bool:
    is_mixed = not told.done and any(not one.is_known for one in told.attempts.values())
    return bool(told.key) and (is_mixed or not told.last.is_known)


def _single(told: Told) -> Iterable[Told]:
    """The operations of a batch, or the one operation."""
    if told.kind != "batch":
        yield told
        return
    for n, body in enumerate(told.body["operations"]):
        attempts = {number: _item(attempt, n) for number, attempt in told.attempts.items()}
        key = f"{told.key}.{n}" if told.key else ""
        yield Told(f"{told.id}.{n}", body["op"], told.user, told.path, body, key, attempts)


def _item(attempt: Attempt, n: int) -> Attempt:
    if not attempt.is_done:
        return attempt
    item = json.loads(attempt.text)["results"][n]
    return Attempt(attempt.began_ms, attempt.ended_ms, item["status"], json.dumps(item))
