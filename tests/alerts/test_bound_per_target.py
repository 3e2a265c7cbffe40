"""P8: what hangs at one target is in nobody else's way, and one delivery that cannot be handled holds up no other."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from meter.alerts import attempt, webhook
from meter.alerts.dispatcher import Dispatcher
from meter.alerts.guard import SystemResolver
from meter.alerts.notification import InMemoryNotificationQueue, NotDelivered, Notification
from meter.alerts.passing_on import delivery_of
from meter.alerts.signing import new_secret
from meter.alerts.target import BESIDE_MAX
from meter.alerts.webhook import WebhookSender
from meter.amount import AmountScale
from meter.store.base import StoreRefused
from meter.store.connect import open_store
from meter.store.memory.store import MemoryStore
from meter.store.row import Row
from meter.store.rows import AlertRow, DeliveryRow, WebhookRow
from meter.store.sql.store import SqlStore
from tests.alerts.post import Post
from tests.alerts.receiver import Receiver, receiver
from tests.alerts.silent import byte_by_byte, never, odd, reset, rubbish, taken_with_an_endless_body

PATIENCE_SECONDS = 30.0
"""Far more than a test needs, far less than one that hangs."""


@pytest.fixture(autouse=True)
def _endless_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """No attempt ends by its time: what waited for one that hangs would wait for ever."""
    monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 3600.0)
    monkeypatch.setattr(attempt, "CHANNEL_TIMEOUT_SECONDS", 3600.0)


async def add_alerts(office: Post, number: int, kind: str = "low_credits") -> list[AlertRow]:
    """Alerts of as many users, as a flush puts them into the store."""
    now_ms = await office.town.engine.now_ms()
    rows = [
        AlertRow(alert_id=f"{kind}-{n}", kind=kind, user_id=f"u{n}", payload={"threshold": 1}, created_at_ms=now_ms)
        for n in range(number)
    ]
    await office.town.store.insert_many(rows)
    return rows


async def add_endpoints(office: Post, url: str, number: int) -> list[str]:
    """Endpoints of one server, past the API."""
    rows = [
        WebhookRow(
            webhook_id=f"w_{url[-9:-5]}_{n}", url=f"{url}/{n}", secret=new_secret(), created_at_ms=0, updated_at_ms=0
        )
        for n in range(number)
    ]
    await office.town.store.insert_many(rows)
    return [row.webhook_id for row in rows]


@asynccontextmanager
async def delivering(office: Post) -> AsyncIterator[Dispatcher]:
    """A delivery under way, by a dispatcher that is cut off at the end."""
    dispatcher = office.dispatcher()
    delivery = asyncio.create_task(dispatcher.deliver(3600.0))
    try:
        yield dispatcher
    finally:
        delivery.cancel()
        await dispatcher.close()


async def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for what must come."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"never came: {what}")


async def states(office: Post) -> dict[str, list[str]]:
    """The states of all deliveries, by target."""
    found: dict[str, list[str]] = {}
    for row in await office.deliveries():
        found.setdefault(row.target, []).append(row.state)
    return found


@pytest.mark.parametrize("manner", [never, byte_by_byte])
async def test_a_hundred_alerts_reach_the_healthy_one_while_the_other_hangs(
    office: Post, hook: Receiver, manner: object
) -> None:
    """P8: one attempt is at the one that hangs, and it has not ended."""
    async with odd(manner) as hanging:  # type: ignore[arg-type]
        office.add_webhook(hanging.url)
        office.add_webhook(hook.url)
        await add_alerts(office, 100)
        async with delivering(office) as dispatcher:
            await until(lambda: len(hook.received) == 100, "a hundred alerts")
            await until(lambda: len(hanging.begun) == 1, "the attempt that hangs")
            assert dispatcher.under_way <= 1 + 15
        assert len(hanging.begun) == 1
        assert len({one.id for one in hook.received}) == 100


async def test_a_page_full_of_one_target_does_not_hide_the_others(office: Post, hook: Receiver) -> None:
    """P8: a thousand deliveries of the one that hangs are due longer than those of the healthy one."""
    async with odd(never) as hanging:
        slow = office.add_webhook(hanging.url)["webhook_id"]
        rows = [
            delivery_of(alert, slow).model_copy(update={"next_attempt_at_ms": 1})
            for alert in await add_alerts(office, 1_000, "credits_expired")
        ]
        await office.town.store.insert_many(rows)
        office.add_webhook(hook.url, kinds=["low_credits"])
        await add_alerts(office, 250)
        async with delivering(office):
            await until(lambda: len(hook.received) == 250, "the alerts of the healthy one")
        assert len(hanging.begun) == 1


async def test_eight_of_298_targets_are_served_while_290_hang(office: Post) -> None:
    """P8, X10: more that hang than a session of the library has connections, or asyncio threads."""
    async with odd(never) as hanging, receiver() as healthy:
        await add_endpoints(office, hanging.url, 290)
        await add_endpoints(office, healthy.url, 8)
        await add_alerts(office, 20)
        async with delivering(office):
            await until(lambda: len(healthy.received) == 160, "all of the eight healthy ones")
            await until(lambda: len(hanging.begun) == 290, "the first attempts of the others")
        assert len(hanging.begun) == 290


async def test_attempts_begin_before_all_alerts_have_become_deliveries(
    office: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: with hundreds of targets that takes longer than a healthy one needs for all of its own."""
    monkeypatch.setattr("meter.alerts.passing_on.DELIVERIES_AT_ONCE", 6)
    made: list[int] = []

    class Noting:
        async def enqueue(self, notification: Notification) -> None:
            made.append(len(await office.deliveries()))

    for n in range(3):
        office.channels[f"c{n}"] = Noting()
    await add_alerts(office, 30)
    assert await office.deliver() == 90
    assert made[0] < 90 == max(made)


async def test_a_channel_that_hangs_is_in_nobodys_way(office: Post, hook: Receiver) -> None:
    """P8: a queue of one's own, Apprise, a Redis that is away."""

    class Stuck:
        async def enqueue(self, notification: Notification) -> None:
            await asyncio.Event().wait()

    office.channels["stuck"], office.channels["mine"] = Stuck(), InMemoryNotificationQueue()
    office.add_webhook(hook.url)
    await add_alerts(office, 30)
    mine = office.channels["mine"]
    assert isinstance(mine, InMemoryNotificationQueue)
    async with delivering(office):
        await until(lambda: len(hook.received) == len(mine.notifications) == 30, "both others")
    assert (await states(office))["stuck"] == ["due"] * 30


async def test_a_channel_that_takes_too_long_is_cut_off_and_tried_again(
    office: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "CHANNEL_TIMEOUT_SECONDS", 0.01)
    cut_off: list[str] = []

    class Slow:
        async def enqueue(self, notification: Notification) -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cut_off.append(notification.user_id)
                raise

    office.channels["slow"] = Slow()
    await add_alerts(office, 3)
    assert await office.deliver() == 1
    assert len(cut_off) == 1
    rows = await office.deliveries()
    assert sorted(row.attempts for row in rows) == [0, 0, 1]
    assert {row.error for row in rows if row.attempts} == {"TimeoutError: not taken within 0.01 s"}


@pytest.mark.parametrize("manner", [reset, rubbish])
async def test_a_target_that_gives_no_answer_is_left_alone_for_the_rest_of_the_pass(
    office: Post, hook: Receiver, manner: object
) -> None:
    """P8: its other deliveries keep their attempts; the next pass tries one more."""
    async with odd(manner) as broken:  # type: ignore[arg-type]
        office.add_webhook(broken.url)
        office.add_webhook(hook.url)
        await add_alerts(office, 20)
        assert await office.deliver() == 21
        assert (len(broken.begun), len(hook.received)) == (1, 20)
        await office.deliver()
        assert len(broken.begun) == 2
    errors = [row.error for row in await office.deliveries() if row.error]
    assert len(errors) == 2 and all(error.isprintable() for error in errors)


async def test_an_answer_counts_from_its_status_on(office: Post) -> None:
    """P8: a body that never ends is neither waited for nor a failure."""
    async with odd(taken_with_an_endless_body) as talking:
        office.add_webhook(talking.url)
        await add_alerts(office, 1)
        assert await office.deliver() == 1
        assert [row.state for row in await office.deliveries()] == ["delivered"]


async def test_a_target_gets_more_at_once_the_more_it_takes_and_one_again_when_it_fails(office: Post) -> None:
    at_once: list[int] = []

    class Counting:
        under_way = 0
        fails = False

        async def enqueue(self, notification: Notification) -> None:
            self.under_way += 1
            at_once.append(self.under_way)
            await asyncio.sleep(0.001)
            self.under_way -= 1
            if self.fails:
                raise NotDelivered("not now")

    queue = Counting()
    office.channels["counting"] = queue
    await add_alerts(office, 150)
    assert await office.deliver() == 150
    assert (at_once[0], max(at_once)) == (1, BESIDE_MAX + 1)

    queue.fails = True
    at_once.clear()
    await add_alerts(office, 30, "credits_expired")
    assert await office.deliver() == 30
    assert set(at_once) == {1}


async def test_what_runs_beside_the_first_attempts_is_bounded_over_all(
    office: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process has so many open files; the first attempt of each target is always allowed."""
    monkeypatch.setattr("meter.alerts.dispatcher.BESIDE_MAX", 2)
    most: list[int] = []

    class Counting:
        async def enqueue(self, notification: Notification) -> None:
            most.append(dispatcher.under_way)
            await asyncio.sleep(0)

    for n in range(5):
        office.channels[f"c{n}"] = Counting()
    dispatcher = office.dispatcher()
    await add_alerts(office, 40)
    done = await dispatcher.deliver(PATIENCE_SECONDS)
    assert (done.attempted, done.delivered, done.more) == (200, 200, False)
    assert max(most) <= 5 + 2
    assert dispatcher.counts.alerts == {"low_credits": 40}
    assert dispatcher.counts.attempts == {"delivered": 200}


async def test_names_that_nobody_answers_for_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: the threads that asyncio shares would all wait for them."""
    answered = threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any) -> object:
        if host.startswith("hangs"):
            answered.wait(PATIENCE_SECONDS)
            raise OSError("no answer")
        return real(host, *rest)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver = SystemResolver()
    asked = [asyncio.create_task(resolver.resolve(f"hangs-{n}", 443)) for n in range(100)]
    try:
        assert await asyncio.wait_for(resolver.resolve("localhost", 443), PATIENCE_SECONDS)
        assert not any(task.done() for task in asked)
    finally:
        answered.set()
        await asyncio.gather(*asked, return_exceptions=True)
        await resolver.close()


@pytest.mark.parametrize(
    "payload", [{"expires_at_ms": -(10**18)}, {"more": 10**30}, {"text": "\ud800"}, ["no", "object"], "text", 7]
)
async def test_a_delivery_that_cannot_be_told_is_set_aside_with_an_alarm(
    office: Post, hook: Receiver, payload: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """P8, P5: it fails for good, an event of the ledger says so, the list still answers, and the rest goes on."""
    target = office.add_webhook(hook.url)["webhook_id"]
    now_ms = await office.town.engine.now_ms()
    alert = AlertRow(alert_id="bad", kind="of tomorrow", user_id="u", payload=payload, created_at_ms=now_ms)
    bad = delivery_of(alert, target)
    await office.town.store.insert_many([alert])
    await add_alerts(office, 3)
    assert await office.deliver() == 4
    assert len(hook.received) == 3
    (entry,) = office.log(state="failed")
    assert (entry["notification_id"], entry["data"], entry["attempts"]) == (bad.delivery_id, None, 1)
    assert entry["error"].startswith("set aside: ")
    (event,) = await office.town.store.events(kind="error", limit=9)
    assert event.user_id == "u" and bad.delivery_id in caplog.text
    assert await office.deliver() == 0


async def test_an_alert_that_the_store_does_not_take_as_a_delivery_holds_up_no_other(
    office: Post, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8, P5: of a page, it alone is set aside."""
    office.add_webhook(hook.url)
    rows = await add_alerts(office, 5)
    insert_many = MemoryStore.insert_many

    async def refusing(self: MemoryStore, many: list[Row]) -> None:
        if any(isinstance(row, DeliveryRow) and row.alert_id == rows[2].alert_id for row in many):
            raise StoreRefused("a text of this row does not fit")
        await insert_many(self, many)

    monkeypatch.setattr(MemoryStore, "insert_many", refusing)
    assert await office.deliver() == 4
    assert {row.alert_id: row.state for row in await office.alerts()} == {
        row.alert_id: "failed" if row is rows[2] else "passed" for row in rows
    }
    (event,) = await office.town.store.events(kind="error", limit=9)
    assert event.user_id == rows[2].user_id
    assert await office.deliver() == 0


async def test_json_that_is_none_in_the_database_is_set_aside(tmp_path: Path, hook: Receiver) -> None:
    """P8: a text of SQLite's that no JSON is, in an alert and in a delivery."""
    store = open_store(f"sqlite:///{tmp_path}/meter.db")
    assert isinstance(store, SqlStore)
    await store.open({})
    queue = InMemoryNotificationQueue()
    rows = [AlertRow(alert_id=f"a{n}", kind="low_credits", user_id="u", payload={}, created_at_ms=1) for n in range(3)]
    await store.insert_many(rows)
    await store.insert_many([delivery_of(row, "mine") for row in rows[:1]])
    async with store.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE alerts SET payload = '{bad' WHERE alert_id = 'a1'")
        await connection.exec_driver_sql("UPDATE deliveries SET payload = 'worse'")

    async def now_ms() -> int:
        return 1_000

    sender = WebhookSender(allow_private=True)
    dispatcher = Dispatcher(store, sender, {"mine": queue}, AmountScale(6), now_ms)
    done = await dispatcher.deliver(PATIENCE_SECONDS)
    assert (done.attempted, done.delivered, done.more) == (3, 1, False)
    assert dispatcher.counts.attempts == {"delivered": 1, "set_aside": 2}
    assert len(await store.events(kind="error", limit=9)) == 2
    await sender.close()
    await store.close()
