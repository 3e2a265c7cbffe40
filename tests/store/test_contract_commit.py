"""A change of several rows: all of it or nothing, on every store."""

from __future__ import annotations

import asyncio

import pytest

from meter.store.base import Store, StoreRefused
from meter.store.catalog import Change
from meter.store.plan_rows import SubscriptionRow
from meter.store.rows import AlertRow, AnswerRow, GrantRow
from tests.store import samples
from tests.store.conftest import Servers
from tests.store.samples import T0
from tests.store.test_contract_catalog import moved, subscription


def answer(key: str = "key", body: str = '{"a":"ü\\u0000"}') -> AnswerRow:
    return AnswerRow(operation_id=key, fingerprint="f" * 32, status=200, body=body, created_at_ms=T0)


async def grants(store: Store, *names: str) -> set[str]:
    return {row.grant_id for row in (await store.grants([("a", name) for name in names])).values()}


@pytest.fixture
async def rows(store: Store) -> list[SubscriptionRow]:
    found = [subscription(name) for name in ("a", "b", "c")]
    await store.insert_many(found)
    return found


async def versions(store: Store) -> dict[str, int]:
    found = await store.find(SubscriptionRow, {}, order_by="user_id", limit=100)
    return {row.user_id: row.version for row in found}


async def test_everything_of_a_change_is_written(store: Store, rows: list[SubscriptionRow]) -> None:
    known = samples.grant("g1", "a", pending=True)
    await store.insert_many([known])
    change = Change(
        swaps=[moved(row, T0 + 20) for row in rows],
        new=[subscription("new"), answer()],
        missing=[known.model_copy(update={"amount": 7}), samples.grant("g2", "a", pending=True), samples.alert("i")],
    )

    assert await store.commit(change)

    assert await versions(store) == {"a": 2, "b": 2, "c": 2, "new": 1}
    assert await store.get(AnswerRow, "key") == answer()
    assert {name: row.amount for (_, name), row in (await store.grants([("a", "g1"), ("a", "g2")])).items()} == {
        "g1": 100,
        "g2": 100,
    }
    assert await store.get(AlertRow, "i") == samples.alert("i")
    assert await store.commit(Change())


async def test_a_change_of_new_rows_alone_leaves_those_rows_and_no_other(store: Store) -> None:
    """Its first statement adds rows, and is the one that begins the transaction."""
    new = [subscription("a"), subscription("b")]

    assert await store.commit(Change(new=[*new, answer()]))

    assert await store.find(SubscriptionRow, {}, order_by="user_id", limit=100) == new
    assert await store.find(AnswerRow, {}, order_by="operation_id", limit=100) == [answer()]


@pytest.mark.parametrize("how", ["a version that moved on", "a key that is there", "a row that is gone"])
async def test_nothing_of_a_change_is_written_where_another_was_first(
    kind: str, store: Store, rows: list[SubscriptionRow], how: str
) -> None:
    swaps, new = [moved(row, T0 + 20) for row in rows], [answer()]
    if how == "a version that moved on":
        await store.swap(moved(rows[1], T0 + 30))
        swaps = swaps[1:] if kind == "mongo" else swaps  # a standalone server has no way back
    elif how == "a key that is there":
        assert await store.insert(answer(body="first"))
    else:
        swaps = [moved(subscription("gone"), T0 + 20)]
    before = await versions(store)

    done = await store.commit(Change(swaps=swaps[:1] if kind == "mongo" else swaps, new=new, missing=[_grant("g")]))

    assert not done
    assert await versions(store) == before
    assert await grants(store, "g") == set()
    found = await store.get(AnswerRow, "key")
    assert (None if found is None else found.body) == ("first" if how == "a key that is there" else None)


@pytest.fixture
def racing(kind: str, servers: Servers) -> None:
    servers.need_concurrent_transactions(kind)


@pytest.mark.usefixtures("racing")
async def test_of_racing_changes_one_is_written(store: Store, rows: list[SubscriptionRow]) -> None:
    changes = [
        Change(swaps=[moved(rows[0], T0 + 20 + n)], new=[answer(f"key {n}")], missing=[_grant(f"g{n}")])
        for n in range(6)
    ]

    done = await asyncio.gather(*map(store.commit, changes))

    assert sum(done) == 1
    first = done.index(True)
    assert await grants(store, *(f"g{n}" for n in range(6))) == {f"g{first}"}
    assert [n for n in range(6) if await store.get(AnswerRow, f"key {n}") is not None] == [first]


@pytest.mark.usefixtures("racing")
async def test_racing_changes_that_use_one_key_have_one_winner(store: Store, rows: list[SubscriptionRow]) -> None:
    changes = [Change(swaps=[moved(row, T0 + 20)], new=[answer(body=row.user_id)]) for row in rows]

    done = await asyncio.gather(*map(store.commit, changes))

    assert sum(done) == 1
    winner = rows[done.index(True)].user_id
    stored = await store.get(AnswerRow, "key")
    assert stored is not None
    assert stored.body == winner


@pytest.mark.usefixtures("racing")
async def test_racing_changes_may_add_the_same_missing_rows(store: Store, rows: list[SubscriptionRow]) -> None:
    changes = [Change(swaps=[moved(row, T0 + 20)], missing=[_grant("shared"), samples.alert("i")]) for row in rows]

    assert await asyncio.gather(*map(store.commit, changes)) == [True, True, True]

    assert await grants(store, "shared") == {"shared"}


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def test_a_row_that_fits_no_column_is_refused_and_nothing_written(
    store: Store, rows: list[SubscriptionRow]
) -> None:
    unfit = samples.alert("i").model_copy(update={"created_at_ms": 2**70})

    with pytest.raises(StoreRefused):
        await store.commit(Change(swaps=[moved(rows[0], T0 + 20)], missing=[unfit]))

    assert await versions(store) == {"a": 1, "b": 1, "c": 1}


async def test_rows_are_removed_by_their_keys(store: Store, rows: list[SubscriptionRow]) -> None:
    await store.insert_many([answer("one"), answer("two")])

    await store.remove([rows[0], rows[2], subscription("gone")])
    await store.remove([answer("two")])
    await store.remove([])

    assert await versions(store) == {"b": 1}
    assert await store.get(AnswerRow, "one") == answer("one")
    assert await store.get(AnswerRow, "two") is None


def _grant(name: str) -> GrantRow:
    return samples.grant(name, "a", pending=True)
