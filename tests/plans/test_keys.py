"""The Idempotency-Key of plans and subscriptions (P17): the first answer again, another body 422, no key spoilt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from meter.store.memory.store import _Tables
from meter.store.rows import AnswerRow
from tests.plans.conftest import START
from tests.plans.test_allocation import Interruptible, killed
from tests.plans.town import Town, done, town

Body = Mapping[str, object]
PLAN: Body = {"name": "Pro", "credit_limit": 100, "price": "9.90", "billing_period": "monthly"}


@dataclass(frozen=True)
class Keyed:
    """A call, another body for it, what is refused, and the credits that it leaves to u."""

    name: str
    body: Body | None = None
    other: Body | None = None
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    refused_body: Body | None = None
    refused_path: Mapping[str, str] | None = None
    left: int = 100


U, PRO, NONE = {"user_id": "u"}, {"plan_id": "pro"}, {"plan_id": "none"}
CALLS = (
    Keyed("create_plan", PLAN, {**PLAN, "credit_limit": 7}, refused_body={**PLAN, "plan_id": "pro"}),
    Keyed("update_plan", {**PLAN, "price": 12}, PLAN, PRO, refused_path=NONE),
    Keyed("delete_plan", path=PRO, refused_path=NONE),
    Keyed("subscribe", PRO, {**PRO, "auto_renew": False}, {"user_id": "v"}, refused_body=NONE),
    Keyed("upgrade", {"plan_id": "team"}, {**PRO, "when": "period_end"}, U, refused_body=NONE, left=500),
    Keyed("unsubscribe", path=U, query={"unspent": "void"}, refused_path={"user_id": "nobody"}, left=0),
)
each_call = pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)


async def ask(
    found: Town, call: Keyed, key: str | None, body: Body | None = None, path: Mapping[str, str] | None = None
) -> tuple[int, bytes, bool]:
    sent = call.body if body is None else body
    payload = None if sent is None else json.dumps(sent).encode()
    return await found.meter._carry(call.name, call.path if path is None else path, call.query, payload, key)


def told(answer: tuple[int, bytes, bool]) -> list[object]:
    """What an answer says, whichever request it is of."""
    return [(name, value) for name, value in json.loads(answer[1]).items() if name != "request_id"]


async def begun(found: Town) -> Town:
    """u has the plan pro; v has none."""
    await found.plan("pro")
    await found.plan("team", 500)
    done(await found.meter.subscribe("u", "pro"))
    return found


async def seen(found: Town) -> tuple[bytes, ...]:
    """All that a caller can see of it."""
    looks: tuple[tuple[str, Mapping[str, str]], ...] = (
        ("plans", {}),
        *(("subscriptions", {"user_id": user}) for user in "uv"),
        *(("grants", {"user_id": user}) for user in "uv"),
        *(("history", {"user_id": user}) for user in "uv"),
    )
    return tuple([(await found.meter._carry(name, path, {}, None, None))[1] for name, path in looks])


@each_call
async def test_the_first_answer_comes_again_byte_for_byte(both: Town, call: Keyed) -> None:
    await begun(both)
    first = await ask(both, call, "key-1")
    assert first[0] in (200, 201), first
    before = await seen(both)
    await both.set_time(START.replace(hour=13))

    assert await ask(both, call, "key-1") == (*first[:2], True)
    assert await ask(both, call, '"key-1"') == (*first[:2], True)
    assert await seen(both) == before
    rows = await both.store.find(AnswerRow, {}, order_by="operation_id", limit=10)
    assert [(row.operation_id, row.status, row.body.encode()) for row in rows] == [("key-1", *first[:2])]


@each_call
async def test_a_key_with_another_body_is_refused_and_changes_nothing(both: Town, call: Keyed) -> None:
    await begun(both)
    await ask(both, call, "key-1")
    before = await seen(both)

    if call.other is not None:
        status, text, _ = await ask(both, call, "key-1", call.other)
        assert (status, json.loads(text)["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    status, text, _ = await both.meter._carry(
        "create_plan", {}, {}, json.dumps({**PLAN, "name": "x"}).encode(), "key-1"
    )
    assert (status, json.loads(text)["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")

    assert await seen(both) == before


@each_call
async def test_a_refusal_poisons_no_key(both: Town, call: Keyed) -> None:
    await begun(both)
    refused = await ask(both, call, "key-1", call.refused_body, call.refused_path)
    assert refused[0] in (404, 409), refused
    again = await ask(both, call, "key-1", call.refused_body, call.refused_path)
    assert (again[0], *told(again), again[2]) == (refused[0], *told(refused), refused[2])

    done = await ask(both, call, "key-1")

    assert done[0] in (200, 201)
    assert not done[2]


@each_call
async def test_twins_at_one_moment_have_one_answer(call: Keyed) -> None:
    async with town(START, store=Interruptible(_Tables())) as found:
        await begun(found)
        answers = await asyncio.gather(*(ask(found, call, "key-1") for _ in range(8)))

        assert await found.available("v" if call.name == "subscribe" else "u") == call.left

    assert len({text for _, text, _ in answers}) == 1
    assert sum(not replayed for *_, replayed in answers) == 1
    assert {status for status, *_ in answers} <= {200, 201}


@each_call
async def test_a_call_that_died_anywhere_is_done_once_by_its_repetition(call: Keyed) -> None:
    number, died = 0, True
    while died:
        async with town(START, store=Interruptible(_Tables())) as found:
            await begun(found)
            died = await killed(ask(found, call, "key-1"), number)
            again = await ask(found, call, "key-1")
            assert again[0] in (200, 201), (number, again)
            assert await ask(found, call, "key-1") == (*again[:2], True)
            assert len(done(await found.meter.plans()).items) == {"create_plan": 3, "delete_plan": 1}.get(call.name, 2)
            await found.allocate()  # what the one who died has left to do
            assert await found.available("v" if call.name == "subscribe" else "u") == call.left, number
        number += 1
    assert number > 5


async def test_a_late_retry_does_not_undo_what_came_after(both: Town) -> None:
    """P17: an upgrade is repeated after another one."""
    await begun(both)
    first = await ask(both, CALLS[4], "key-1")
    await both.plan("max", 900)
    done(await both.meter.upgrade("u", "max"))

    assert await ask(both, CALLS[4], "key-1") == (*first[:2], True)

    assert done(await both.meter.subscriptions("u")).items[0].plan_id == "max"
    assert await both.available() == 900


async def test_a_withdrawn_plan_says_so_and_is_not_made_again(both: Town) -> None:
    """P18: the answer shows the state after the call."""
    body = {**PLAN, "plan_id": "p"}
    create = Keyed("create_plan", body)
    assert (await ask(both, create, None))[0] == 201
    status, text, _ = await both.meter._carry("delete_plan", {"plan_id": "p"}, {}, None, None)
    assert (status, json.loads(text)["active"]) == (200, False)

    status, text, _ = await ask(both, create, None)

    assert (status, json.loads(text)["code"]) == (409, "PLAN_EXISTS")
