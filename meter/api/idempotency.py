"""The Idempotency-Key of calls that change rows of the store (what Redis decides keeps its keys there).

The first answer is committed with the change that it tells of, so a call either did nothing or has its answer: a
process that dies in between, a lost reply or a twin of the call at the same moment never does the change again. A
refusal changes nothing and keeps nothing, so it poisons no key.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b
from urllib.parse import parse_qsl

from pydantic import BaseModel

from meter.http.exchange import Request
from meter.http.reading import read_key
from meter.http.rendered import Answered, Rendered, problem
from meter.store.catalog import Catalog
from meter.store.rows import AnswerRow

TRIES_MAX = 5


@dataclass(frozen=True, slots=True)
class KeyedCall:
    """A call as its caller asked for it. `key` is "" where the caller gave none."""

    key: str
    fingerprint: str

    def kept(self, answer: Rendered, now_ms: int) -> tuple[AnswerRow, ...]:
        """What has to be `new` in the commit of the change that the answer tells of; nothing without a key."""
        if not self.key:
            return ()
        row = AnswerRow(
            operation_id=self.key,
            fingerprint=self.fingerprint,
            status=answer.status,
            body=answer.body.decode(),
            created_at_ms=now_ms,
        )
        return (row,)


def keyed_call(name: str, request: Request, body: BaseModel | None = None) -> KeyedCall:
    """The key of a request, and what tells its call from others: name, path, query, and the members that its body has.

    Raises `Answered` for a key that is none.
    """
    asked = [name, *(f"{member}={value}" for member, value in sorted(request.path.items()))]
    asked += [f"{member}={value}" for member, value in sorted(parse_qsl(request.query, keep_blank_values=True))]
    if body is not None:
        asked.append(body.model_dump_json(exclude_unset=True))
    return KeyedCall(read_key(request), blake2b("\x1f".join(asked).encode(), digest_size=16).hexdigest())


async def answered_once(store: Catalog, call: KeyedCall, run: Callable[[], Awaitable[Rendered]]) -> Rendered:
    """The first answer of a call with that key, byte for byte; else what `run` answers, which commits `call.kept`.

    Another call with the key is refused. Raises what `run` raises.
    """
    if not call.key:
        return await run()
    first = await store.get(AnswerRow, call.key)
    if first is None:
        try:
            rendered = await run()
        except Answered as refused:
            rendered = refused.rendered
        if rendered.status < 400:
            return rendered
        first = await store.get(AnswerRow, call.key)  # it may be refused because its twin was done meanwhile
        if first is None:
            return rendered
    if first.fingerprint != call.fingerprint:
        return problem("idempotency-key-reused", "The key was used before with another body.")
    return Rendered(first.status, first.body.encode(), replayed=True)


async def until_first(once: Callable[[], Awaitable[Rendered | None]]) -> Rendered:
    """What `once` answers when no other process was first, of a few tries."""
    for _ in range(TRIES_MAX):
        if (done := await once()) is not None:
            return done
    return problem("busy", "Another process changed it at the same time; try again.")
