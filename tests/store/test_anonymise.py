"""U9 on every store: afterwards nothing names the user, the sums are what they were, and a rebuild gives the same."""

from __future__ import annotations

import pytest

from meter.config import Settings
from meter.engine import operations
from meter.engine.operations import Asked
from meter.engine.top_ups import top_up
from meter.ledger.anonymise import Anonymiser
from meter.ledger.flusher import Flusher
from meter.ledger.rebuild import Rebuild
from meter.ledger.reconcile import Reconcile
from meter.runtime import Runtime
from meter.store.base import Store
from meter.store.code_rows import RedemptionRow
from meter.store.plan_rows import SubscriptionRow
from meter.store.rows import (
    AccountRow,
    AnonymisationRow,
    AnswerRow,
    DeliveryRow,
    EventRow,
    GrantRow,
    QuarantineRow,
    ReservationRow,
)
from meter.store.sums import Wanted
from meter.store.top_up_rows import TopUpRow
from tests.ledger.naming import keys_naming, rows_naming, working
from tests.partition import DAY, HOUR, Partition
from tests.servers import fake_server
from tests.store import samples
from tests.store.samples import T0

SETTINGS = Settings(redis_timeout_ms=10_000)
ADA = "ada.lovelace:1815"
SAID = f'"description":"for {ADA}","metadata":{{"of":"{ADA}"}},"reference":"order-{ADA}"'


def tell(partition: Partition) -> list[operations.Operation]:
    """What Ada did, with her name in everything that she chose; what of it has a key."""
    keyed = [
        operations.grant(ADA, f"{ADA}-welcome", 100, asked=Asked(f"k1-{ADA}", SAID, actor=ADA)),
        operations.grant(ADA, "gift", 50, asked=Asked("k2")),
        operations.deduct(ADA, 30, asked=Asked("k3", SAID)),
    ]
    answers = [partition.run(one) for one in keyed]
    partition.run(operations.configure(ADA, thresholds=(90, 60), metadata=f'{{"mail":"{ADA}@example.org"}}'))
    partition.run(top_up(ADA, "set", f"90,100,-,month,payer-{ADA}", Asked("k5", SAID)))
    partition.run(top_up(ADA, "off"))
    partition.refund(ADA, answers[2]["transaction_id"], 10)
    partition.run(operations.reserve(ADA, f"job-{ADA}", 20, HOUR, chosen=True, asked=Asked("", SAID)))
    partition.run(operations.commit(f"job-{ADA}", 15))
    partition.run(operations.reserve(ADA, "r", 20, HOUR, chosen=True))
    partition.run(operations.release("r"))
    partition.run(operations.void(ADA, f"{ADA}-welcome", asked=Asked("k4", '"description":"gone"')))
    partition.run(operations.void(ADA, "gift"))
    return keyed


def others_rows() -> list[
    SubscriptionRow | EventRow | DeliveryRow | AnswerRow | QuarantineRow | RedemptionRow | TopUpRow
]:
    """What else a store has of a user."""
    return [
        SubscriptionRow(
            user_id=ADA,
            subscription_id="s_1",
            plan_id="pro",
            state="ended",
            anchor_at_ms=T0,
            period_started_at_ms=T0,
            next_period_at_ms=T0,
            metadata={"of": ADA},
            created_at_ms=T0,
            updated_at_ms=T0,
        ),
        samples.event("e1", user_id=ADA, message=f"{ADA} was refused"),
        samples.delivery("d1", user_id=ADA),
        AnswerRow(operation_id="k9", fingerprint="f", status=200, body=f'{{"user_id":"{ADA}"}}', created_at_ms=T0),
        RedemptionRow(code_id="code_a", user_id=ADA, number=1, grant_id="code_a_1", created_at_ms=T0),
        samples.top_up("topup:1", user_id=ADA, reference=f"payer-{ADA}", error=f"{ADA} has no card", state="ended"),
        QuarantineRow(partition=0, seq=10**9, text=f'["{ADA}"', reason="cut off", created_at_ms=T0),
    ]


async def sums(store: Store) -> list[object]:
    """What moved, whoever's it was."""
    return [one[1:] for one in await store.sums(Wanted("day"), "", 1_000)]


async def test_u9_nothing_names_the_user_and_the_sums_are_what_they_were(store: Store) -> None:
    server = fake_server()
    partition = Partition(server.client)
    partition.open()
    async with Runtime(SETTINGS, server.gateway(), store) as runtime:
        flusher = Flusher(runtime.redis, runtime.engine, store, runtime.engine.partitions[0], SETTINGS)
        partition.run(operations.grant("bob", "gift", 7))
        keyed = tell(partition)
        partition.run(operations.deduct("bob", 2, asked=Asked("bobs")))
        while await flusher.step():
            pass
        for row in others_rows():
            await store.insert(row)
        before = await sums(store)
        (account,) = (await store.accounts([ADA])).values()
        ids = {row.transaction_id for row in await store.history(ADA, limit=100)}

        async with working(flusher):
            anonymised = await Anonymiser(runtime.engine, runtime.redis, store).run(ADA, '"actor":"legal"')
            again = await Anonymiser(runtime.engine, runtime.redis, store).run(ADA)

        assert (anonymised.state, again.state) == ("anonymised", "anonymised")
        await nothing_names(store, server.client)
        assert await sums(store) == before
        mine = await under_a_pseudonym(store, account, ids)

        assert partition.run(keyed[1]).status == "key_reused", "a late retry books nothing"
        assert partition.run(operations.commit("r", 1)).status == "not_found"
        assert partition.run(operations.deduct("bob", 2, asked=Asked("bobs"))).replayed, "others' keys stay"
        reconcile = Reconcile(runtime.engine, runtime.redis, store)
        assert (await reconcile.partition(0)).drifts == ()
        for lost in (False, True):
            if lost:
                server.client.flushall()
            report = await Rebuild(runtime.engine, runtime.redis, store, DAY).partition(0)
            assert report.lost == []
            assert (await reconcile.partition(0)).drifts == ()
            await nothing_names(store, server.client)
        assert partition.run(keyed[1]).status == "key_reused"
        figures = partition.run(operations.balance(mine.user_id))
        assert (figures["granted"], figures["spent"], figures["voided"]) == (mine.granted, mine.spent, mine.voided)
    server.client.close()


async def under_a_pseudonym(store: Store, account: AccountRow, ids: set[str]) -> AccountRow:
    """The account is `account` by another name, with the transactions of those ids."""
    (mine,) = [row for row in await store.scan_accounts(0, "", 100) if row.user_id != "bob"]
    assert mine.user_id.startswith("anonymous-")
    assert (mine.granted, mine.spent, mine.expired, mine.voided) == (
        *(account.granted, account.spent, account.expired, account.voided),
    )
    history = await store.history(mine.user_id, limit=100)
    assert ids < {row.transaction_id for row in history}
    assert {row.description for row in history} == {None} and {str(row.metadata) for row in history} == {"None"}
    assert history[0].detail == {
        "overdraft_limit": 0,
        "suspended": False,
        "low_credit_thresholds": "-",
        "actor": "legal",
        "anonymised": True,
    }
    grants = await store.grants_of(mine.user_id, limit=9)
    drawn = {draw[0] for row in history for draw in row.draws}  # type: ignore[union-attr, index]
    assert {row.grant_id for row in grants} == drawn, "the ids in draws are those of the grants"
    assert {(type(row), row.last_seq > 0) for row in grants} == {(GrantRow, True)}
    held = await store.reservations_of(mine.user_id, state=None, limit=9)
    assert {(type(row), row.state) for row in held} == {(ReservationRow, "committed"), (ReservationRow, "released")}
    assert {row.reservation_id for row in history if row.reservation_id} == {row.reservation_id for row in held}
    return mine


async def nothing_names(store: Store, client: object) -> None:
    assert await rows_naming(store, ADA) == []
    assert keys_naming(client, ADA) == []
    assert await store.find(AnonymisationRow, {}, order_by="user_id", limit=9) == []


async def test_u9_rows_are_rewritten_as_they_were_or_not_at_all(store: Store) -> None:
    rows = [samples.grant("g1"), samples.grant("g2", last_seq=5)]
    await store.insert_many(rows)
    new = [row.model_copy(update={"user_id": "other"}) for row in rows]

    stale = [rows[0], rows[1].model_copy(update={"last_seq": 4})]
    done = await store.rewrite(stale, new)

    mine = set(await store.grants([("user-1", "g1"), ("user-1", "g2")]))
    assert not done
    assert ("user-1", "g2") in mine
    assert await store.rewrite([row for row in rows if ("user-1", row.grant_id) in mine], new[-len(mine) :])
    assert await store.grants([("user-1", "g1"), ("user-1", "g2")]) == {}
    assert len(await store.grants([("other", "g1"), ("other", "g2")])) == 2
    assert await store.rewrite(new, [])
    assert await store.grants([("other", "g1")]) == {}


@pytest.mark.parametrize("members", [{"metadata": {"a": 1}}, {"user_id": "other"}])
async def test_u9_a_transaction_is_rewritten_under_its_own_id(store: Store, members: dict[str, object]) -> None:
    row = samples.transaction(1)
    await store.apply(samples.flush(None, [row]))
    new = row.model_copy(update=members)

    assert await store.rewrite([row], [new])

    assert await store.transaction(row.transaction_id) == new
    assert await store.history(new.user_id, limit=9) == [new]
    assert await store.history("user-1", limit=9) == ([new] if new.user_id == "user-1" else [])
