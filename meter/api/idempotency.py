"""The Idempotency-Key of calls that change rows of the store (what Redis decides keeps its keys there).

The first answer is committed with the change that it tells of, so a call either did nothing or has its answer: a
process that dies in between, a lost reply or a twin of the call at the same moment never does the change again. A
refusal changes nothing and keeps nothing, so it poisons no key.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from urllib.parse import parse_qsl

import orjson
from pydantic import BaseModel, JsonValue

from meter.http.exchange import Request
from meter.http.reading import read_actor, read_key
from meter.http.rendered import Answered, Rendered, problem
from meter.http.request_id import brought_id
from meter.log import current_request_id
from meter.store.catalog import Catalog
from meter.store.row import Row
from meter.store.rows import AnswerRow, EventRow

TRIES_MAX = 5
CHANGE = "change"
"""The kind of the events that tell what people changed of plans, subscriptions and webhooks, and who did."""


@dataclass(frozen=True, slots=True)
class KeyedCall:
    """A call as its caller asked for it. `key` is "" where the caller gave none."""

    key: str
    fingerprint: str
    told: Mapping[str, JsonValue]
    """What the log of changes has of it."""

    def kept(self, answer: Rendered, now_ms: int) -> tuple[Row, ...]:
        """What has to be `new` in the commit of the change that the answer tells of: an event that tells of it, and the
        answer where there is a key.
        """
        event = EventRow(
            event_id=f"change-{time.time_ns():016x}{secrets.token_hex(4)}",
            kind=CHANGE,
            user_id=str(self.told["user_id"]) if "user_id" in self.told else None,
            message=str(self.told["call"]),
            detail=dict(self.told),
            created_at_ms=now_ms,
        )
        return (event, *self.kept_answer(answer, now_ms))

    def kept_answer(self, answer: Rendered, now_ms: int) -> tuple[Row, ...]:
        """The same of a call that has nothing left to change; nothing without a key."""
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


def keyed_call(
    name: str, request: Request, body: BaseModel | None = None, hidden: Mapping[str, str] | None = None
) -> KeyedCall:
    """The key of a request, and what tells its call from others: name, path, query, and the members that its body has.
    What is `hidden` stands in the place of members that are to be kept nowhere.

    Raises `Answered` for a key that is none.
    """
    asked = [name, *(f"{member}={value}" for member, value in sorted(request.path.items()))]
    asked += [f"{member}={value}" for member, value in sorted(parse_qsl(request.query, keep_blank_values=True))]
    if body is not None:
        asked.append(body.model_copy(update=hidden).model_dump_json(exclude_unset=True))
    told: dict[str, JsonValue] = {"call": name, **request.path, "query": request.query or None}
    if body is not None:
        sent = orjson.loads(request.body or b"{}")
        told["body"] = {name: value for name, value in sent.items() if name not in (hidden or ())}
        told |= {"user_id": sent["user_id"]} if sent.get("user_id") else {}
    told |= {
        "actor": read_actor(request) or None,
        "request_id": brought_id(request.headers) or current_request_id() or None,
    }
    key = read_key(request)
    return KeyedCall(key, blake2b("\x1f".join(asked).encode(), digest_size=16).hexdigest(), told)


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


async def until_first(once: Callable[[], Awaitable[Rendered | None]], tries: int = TRIES_MAX) -> Rendered:
    """What `once` answers when no other process was first, of a few tries."""
    for _ in range(tries):
        if (done := await once()) is not None:
            return done
    return problem("busy", "Another process changed it at the same time; try again.")
