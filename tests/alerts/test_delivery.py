"""Delivery: signed, at least once under one id, by the schedule, and never in the way of a credit call."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from meter.alerts.notification import InMemoryNotificationQueue, Notification
from meter.alerts.passing_on import pass_on
from meter.alerts.retries import DELAYS_SECONDS, delay_ms
from meter.store.rows import DeliveryRow, WebhookRow
from tests.alerts.post import Post
from tests.alerts.receiver import Receiver
from tests.plans.town import done


async def spend_low(office: Post, user: str = "u") -> None:
    """Fires one low_credits at 10."""
    meter = office.town.meter
    done(await meter.add(user, 100))
    done(await meter.configure(user, low_credit_thresholds=["10.5"]))
    done(await meter.deduct(user, "90.25"))


async def test_an_alert_arrives_signed_and_in_the_words_of_the_api(office: Post, hook: Receiver) -> None:
    secret = office.add_webhook(hook.url)["secret"]
    await spend_low(office)
    assert await office.deliver() == 1
    (one,) = hook.received
    assert one.signed_by(secret)
    assert not one.signed_by("whsec_" + "A" * 43 + "=")
    assert one.body["type"] == "low_credits"
    assert one.body["timestamp"] == "2030-01-31T12:00:00.000Z"
    assert (one.body["data"]["user_id"], one.body["data"]["threshold"], one.body["data"]["available"]) == (
        "u",
        10.5,
        9.75,
    )
    assert one.headers["content-type"] == "application/json"
    assert await office.deliver() == 0
    (entry,) = office.log(user_id="u")
    assert (entry["state"], entry["attempts"], entry["status"], entry["notification_id"]) == (
        "delivered",
        1,
        200,
        one.id,
    )


@pytest.mark.parametrize("second", [(500, {}), (302, {"location": "/elsewhere"})])
async def test_two_failures_then_success_under_one_id(
    office: Post, hook: Receiver, second: tuple[int, dict[str, str]]
) -> None:
    office.add_webhook(hook.url)
    hook.answers = [(500, {}), second]
    await spend_low(office)
    assert await office.deliver() == 1
    assert await office.deliver() == 0  # not before five seconds have passed
    await office.advance(5.6)
    assert await office.deliver() == 1
    await office.advance(10)
    assert await office.deliver() == 0
    await office.advance(5 * 66)
    assert await office.deliver() == 1
    assert len(hook.received) == 3  # a redirect is not followed
    assert len({one.id for one in hook.received}) == 1
    (entry,) = office.log()
    assert (entry["state"], entry["attempts"], entry["error"]) == ("delivered", 3, None)


async def test_it_gives_up_after_the_whole_schedule_and_a_retry_begins_anew(office: Post, hook: Receiver) -> None:
    office.add_webhook(hook.url)
    hook.answers = [(500, {})] * 10
    await spend_low(office)
    for _ in range(12):
        await office.deliver()
        await office.advance(27 * 3600)
    assert len(hook.received) == 10
    (entry,) = office.log(state="failed")
    assert (entry["attempts"], entry["status"]) == (10, 500)
    retried = office.call("POST", f"/notifications/{entry['notification_id']}/retry")
    assert retried["state"] == "due"
    assert await office.deliver() == 1
    assert hook.received[-1].id == entry["notification_id"]


async def test_gone_disables_the_endpoint(office: Post, hook: Receiver) -> None:
    first = office.add_webhook(hook.url)
    hook.answers = [(410, {})]
    await spend_low(office)
    await office.deliver()
    assert office.call("GET", "/webhooks")["items"][0]["state"] == "disabled"
    await spend_low(office, "v")
    await office.deliver()
    assert len(hook.received) == 1
    assert office.add_webhook(hook.url)["secret"] != first["secret"]  # added again: enabled


async def test_what_the_receiver_asks_for_is_waited_for(office: Post, hook: Receiver) -> None:
    office.add_webhook(hook.url)
    hook.answers = [(429, {"retry-after": "3600"}), (503, {"retry-after": "nonsense"})]
    await spend_low(office)
    await office.deliver()
    await office.advance(3500)
    assert await office.deliver() == 0
    await office.advance(101)
    assert await office.deliver() == 1
    await office.advance(5 * 66)
    assert await office.deliver() == 1
    assert len(hook.received) == 3


async def test_both_secrets_sign_during_a_rotation(office: Post, hook: Receiver) -> None:
    endpoint = office.add_webhook(hook.url)
    new = office.call("POST", f"/webhooks/{endpoint['webhook_id']}/rotate")["secret"]
    await spend_low(office)
    await office.deliver()
    assert hook.received[0].signed_by(endpoint["secret"]) and hook.received[0].signed_by(new)
    await office.advance(86_400)
    await spend_low(office, "v")
    await office.deliver()
    assert hook.received[1].signed_by(new) and not hook.received[1].signed_by(endpoint["secret"])


async def test_a_test_arrives_at_one_endpoint_alone(office: Post, hook: Receiver) -> None:
    endpoint = office.add_webhook(hook.url)
    office.add_webhook(hook.url + "/other")
    office.call("POST", f"/webhooks/{endpoint['webhook_id']}/test")
    assert await office.deliver() == 1
    assert hook.kinds() == ["test"]
    assert hook.received[0].signed_by(endpoint["secret"])


async def test_an_endpoint_gets_the_kinds_it_asked_for(office: Post, hook: Receiver) -> None:
    office.add_webhook(hook.url, kinds=["credits_exhausted"])
    await spend_low(office)
    done(await office.town.meter.deduct("u", "9.75"))
    await office.deliver()
    assert hook.kinds() == ["credits_exhausted"]


async def test_a_deleted_endpoint_gets_nothing_more(office: Post, hook: Receiver) -> None:
    endpoint = office.add_webhook(hook.url)
    hook.answers = [(500, {})]
    await spend_low(office)
    await office.deliver()
    assert office.call("DELETE", f"/webhooks/{endpoint['webhook_id']}")["state"] == "deleted"
    await office.advance(60)
    await office.deliver()
    assert len(hook.received) == 1
    assert (office.log()[0]["state"], office.call("GET", "/webhooks")["items"]) == ("failed", [])
    office.call("POST", f"/webhooks/{endpoint['webhook_id']}/test", status=404)


async def test_several_workers_send_once(office: Post, hook: Receiver) -> None:
    office.add_webhook(hook.url)
    for user in "abcdef":
        await spend_low(office, user)
    await asyncio.gather(*(office.deliver() for _ in range(4)))
    assert len(hook.received) == len({one.id for one in hook.received}) == 6


async def test_a_worker_that_died_while_sending_is_made_up_for(office: Post, hook: Receiver) -> None:
    office.add_webhook(hook.url)
    await spend_low(office)
    await office.town.flush()
    now_ms = await office.town.engine.now_ms()
    await pass_on(office.town.store, office.channels, now_ms, Counter())
    (row,) = await office.deliveries()
    claimed = {"version": row.version + 1, "attempts": 1, "next_attempt_at_ms": now_ms + 60_000}
    assert await office.town.store.swap(row.model_copy(update=claimed))
    assert await office.deliver() == 0
    await office.advance(61)
    assert await office.deliver() == 1
    assert hook.received[0].id == row.delivery_id


async def test_an_alert_is_passed_on_once_however_often_that_is_done(office: Post, hook: Receiver) -> None:
    office.add_webhook(hook.url)
    await spend_low(office)
    await office.town.flush()
    now_ms = await office.town.engine.now_ms()
    counted = Counter[str]()
    await asyncio.gather(*(pass_on(office.town.store, office.channels, now_ms, counted) for _ in range(3)))
    assert counted == {"low_credits": 1}
    await office.town.flush()
    assert len(await office.deliveries()) == 1


class Stuck:
    """A queue that takes for ever."""

    async def enqueue(self, notification: Notification) -> None:
        await asyncio.Event().wait()


class Broken:
    """A queue that raises what it likes."""

    async def enqueue(self, notification: Notification) -> None:
        raise ZeroDivisionError(notification.kind)


async def test_receivers_are_never_in_the_way_of_a_credit_call(office: Post) -> None:
    office.channels["stuck"] = Stuck()
    await spend_low(office)
    delivery = asyncio.create_task(office.deliver())
    try:
        while not any(row.attempts for row in await office.deliveries()):
            await asyncio.sleep(0.005)
        for _ in range(20):
            done(await asyncio.wait_for(office.town.meter.deduct("u", "0.01"), 5))
        assert not delivery.done()
    finally:
        delivery.cancel()


async def test_a_queue_of_ones_own_gets_everything_and_its_faults_are_logged(office: Post) -> None:
    office.channels["mine"], office.channels["broken"] = queue, _ = InMemoryNotificationQueue(), Broken()
    await spend_low(office)
    await office.deliver()
    assert [one.kind for one in queue.notifications] == ["low_credits"]
    states = {entry["target"]: (entry["state"], entry["error"]) for entry in office.log()}
    assert states == {"mine": ("delivered", None), "broken": ("due", "ZeroDivisionError: low_credits")}


async def test_the_log_comes_in_pages_newest_first(office: Post) -> None:
    office.channels["mine"] = InMemoryNotificationQueue()
    for user in "abcde":
        await spend_low(office, user)
        await office.advance(1)
    await office.deliver()
    found, cursor = [], ""
    for _ in range(3):
        page: Any = office.call("GET", f"/notifications?limit=2&cursor={cursor}")
        found += [one["user_id"] for one in page["items"]]
        cursor = page["next_cursor"] or ""
    assert (found, cursor) == (list("edcba"), "")
    office.call("GET", "/notifications?cursor=x", status=422)


def test_the_schedule_is_that_of_standard_webhooks() -> None:
    waits = [delay_ms(attempts, None) for attempts in range(1, 11)]
    assert waits[-1] is None
    for wait, seconds in zip(waits[:-1], DELAYS_SECONDS, strict=True):
        assert wait is not None and seconds * 1000 <= wait <= seconds * 1100
    assert delay_ms(1, 600.0) == 600_000


async def test_the_settings_of_an_endpoint_are_checked(office: Post, hook: Receiver) -> None:
    for url in (
        "ftp://example.com",
        "https://user:secret@example.com/",
        "https://",
        "nonsense",
        "https://example.com/#x",
    ):
        problem = office.call("POST", "/webhooks", {"url": url}, status=422)
        assert problem["errors"][0]["pointer"] == "/url"
    office.call("POST", "/webhooks", {"url": hook.url, "kinds": ["everything"]}, status=422)
    office.add_webhook(hook.url)
    assert office.call("POST", "/webhooks", {"url": hook.url}, status=409)["code"] == "WEBHOOK_EXISTS"
    shown = office.call("GET", "/webhooks")["items"][0]
    assert "secret" not in shown
    assert await office.town.store.find(WebhookRow, {"state": "enabled"}, order_by="webhook_id", limit=9) != []
    assert await office.town.store.find(DeliveryRow, {}, order_by="delivery_id", limit=9) == []


async def test_a_flush_that_is_repeated_makes_no_second_alert(office: Post) -> None:
    await spend_low(office)
    await office.town.flush()
    before = await office.alerts()
    await office.town.flush()
    assert await office.alerts() == before
    assert [row.kind for row in before] == ["low_credits"]
