"""From what happens to credits to what is told: each alert once, however often jobs run or entries are flushed."""

from __future__ import annotations

import asyncio

from meter.alerts.notification import InMemoryNotificationQueue
from meter.engine import operations
from meter.ledger.pending_grants import pending_row
from meter.worker.jobs import pending
from tests.alerts.conftest import START
from tests.alerts.post import Post
from tests.alerts.receiver import Receiver
from tests.plans.town import days, done


async def told(office: Post) -> list[tuple[str, object]]:
    """(kind, the first member of its data that matters) of every alert, in order of time and id."""
    rows = sorted(await office.alerts(), key=lambda row: (row.created_at_ms, row.alert_id))
    found: list[tuple[str, object]] = []
    for row in rows:
        assert isinstance(row.payload, dict)
        number = next((row.payload[name] for name in ("threshold", "days", "amount") if name in row.payload), None)
        found.append((row.kind, number))
    return found


async def test_expiry_alone_tells_what_expired_and_that_all_is_gone(office: Post) -> None:
    meter = office.town.meter
    done(await meter.add("u", 100, expires_at=START + days(1)))
    done(await meter.deduct("u", 30))
    await office.advance(86_400)
    await office.town.sweep()
    await office.town.flush()
    assert await told(office) == [("credits_exhausted", 0), ("credits_expired", 70_000_000)]


async def test_racing_charges_across_a_threshold_tell_it_once(office: Post) -> None:
    meter = office.town.meter
    done(await meter.add("u", 100))
    done(await meter.configure("u", low_credit_thresholds=[50]))
    await asyncio.gather(*(meter.deduct("u", 1) for _ in range(60)))
    await office.town.flush()
    assert await told(office) == [("low_credits", 50_000_000)]


async def test_ending_credits_are_told_once_per_grant_and_number_of_days(office: Post) -> None:
    meter = office.town.meter
    done(await meter.add("u", 10, grant_id="long", expires_at=START + days(30)))
    done(await meter.add("u", 10, grant_id="short", expires_at=START + days(0.5)))
    done(await meter.add("u", 10, grant_id="never"))
    done(await meter.add("u", 10, grant_id="spent", expires_at=START + days(20), priority=0))
    done(await meter.deduct("u", 10))
    for step in (0, 0, 22.9, 0.2, 0, 5.5, 0.5, 5):
        await office.advance(step * 86_400)
        await office.town.sweep()
        await office.remind()
    rows = [row for row in await office.alerts() if row.kind == "expiring_credits"]
    payloads = [row.payload for row in sorted(rows, key=lambda row: row.created_at_ms)]
    assert all(isinstance(payload, dict) for payload in payloads)
    assert [(p["grant_id"], p["days"], p["remaining"]) for p in payloads if isinstance(p, dict)] == [
        ("short", 1, 10_000_000),
        ("long", 7, 10_000_000),
        ("long", 1, 10_000_000),
    ]


async def test_a_reminder_that_was_missed_is_made_up_for(office: Post) -> None:
    done(await office.town.meter.add("u", 10, expires_at=START + days(30)))
    await office.advance(27 * 86_400)
    await office.remind()
    assert await told(office) == [("expiring_credits", 7)]


async def test_subscriptions_tell_of_renewal_and_end(office: Post) -> None:
    queue = InMemoryNotificationQueue()
    office.channels["queue"] = queue
    await office.town.plan("day", 5, "daily")
    done(await office.town.meter.subscribe("u", "day"))
    await office.advance(86_400)
    await office.town.allocate()
    done(await office.town.meter.unsubscribe("u"))
    await office.deliver()
    assert sorted(one.kind for one in queue.notifications if one.kind.startswith("subscription")) == [
        "subscription_ended",
        "subscription_renewed",
    ]


async def test_an_error_of_a_user_reaches_webhooks_and_channels_once(office: Post, hook: Receiver) -> None:
    queue = InMemoryNotificationQueue()
    office.channels["queue"] = queue
    secret = office.add_webhook(hook.url, kinds=["transaction_error"])["secret"]
    ended_ms = int(START.timestamp() * 1000) - 1
    one = operations.grant("u", "late", 5, effective_at_ms=ended_ms, expires_at_ms=ended_ms)  # refused for ever
    await office.town.store.add_pending_grant(pending_row(one, 1, "", 0))
    for _ in range(2):
        assert await pending(office.town.context) == 0
        await office.deliver()
    (event,) = await office.town.store.events(kind="error", limit=9)
    (told,) = hook.received
    assert told.signed_by(secret) and told.body["type"] == "transaction_error"
    assert told.body["timestamp"] == "2030-01-31T12:00:00.000Z"
    about = {"user_id": "u", "event_id": event.event_id, "message": event.message, "grant_id": "late"}
    assert told.body["data"] == about
    assert [(one.kind, one.user_id) for one in queue.notifications] == [("transaction_error", "u")]


async def test_the_ids_of_alerts_come_from_their_transaction(office: Post) -> None:
    done(await office.town.meter.add("u", 1))
    done(await office.town.meter.deduct("u", 1))
    await office.town.flush()
    (row,) = await office.alerts()
    assert isinstance(row.payload, dict)
    assert row.alert_id == f"{row.payload['transaction_id']}.credits_exhausted.0"
