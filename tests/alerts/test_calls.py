"""Webhooks and the log of deliveries by the Python API, in process and over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from meter import Credits
from tests.alerts.conftest import START
from tests.alerts.post import Post, post
from tests.alerts.receiver import Receiver
from tests.plans.town import done, pointers, refusal


@pytest.fixture(params=[False, True], ids=["in process", "over HTTP"])
async def way(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Post, Credits]]:
    """A post, and what its webhooks are called by."""
    async with post(START, http=request.param) as office:
        yield office, office.town.meter


async def test_an_endpoint_from_its_making_to_its_end(way: tuple[Post, Credits], hook: Receiver) -> None:
    office, meter = way
    made = done(await meter.create_webhook(hook.url, description="Ours", kinds=["low_credits"]))
    assert (made.url, made.description, made.kinds, made.state) == (hook.url, "Ours", ["low_credits"], "enabled")
    assert refusal(await meter.create_webhook(hook.url)).code == "WEBHOOK_EXISTS"
    rotated = done(await meter.rotate_webhook(made.webhook_id))
    assert rotated.secret != made.secret
    sent = done(await meter.test_webhook(made.webhook_id))
    assert await office.deliver() == 1
    (one,) = hook.received
    assert (one.id, one.body["type"]) == (sent.notification_id, "test")
    assert one.signed_by(made.secret) and one.signed_by(rotated.secret)

    assert done(await meter.delete_webhook(made.webhook_id)).state == "deleted"
    assert done(await meter.webhooks()).items == []
    for answer in (
        await meter.update_webhook(made.webhook_id),
        await meter.delete_webhook(made.webhook_id),
        await meter.rotate_webhook(made.webhook_id),
        await meter.test_webhook("nothing"),
    ):
        assert refusal(answer).code == "WEBHOOK_NOT_FOUND"


async def test_an_endpoint_rests_and_comes_back(way: tuple[Post, Credits], hook: Receiver) -> None:
    office, meter = way
    made = done(await meter.create_webhook(hook.url, kinds=["low_credits"]))
    resting = done(await meter.update_webhook(made.webhook_id, enabled=False))
    assert (resting.state, resting.kinds, resting.description) == ("disabled", None, None)
    done(await meter.add("u", 2))
    done(await meter.deduct("u", 2))
    assert await office.deliver() == 0
    back = done(await meter.update_webhook(made.webhook_id, kinds=["credits_exhausted"], description="Back"))
    assert done(await meter.webhooks()).items == [back]
    done(await meter.add("v", 1))
    done(await meter.deduct("v", 1))
    assert await office.deliver() == 1
    assert [one.body["data"]["user_id"] for one in hook.received] == ["v"]
    assert hook.received[0].signed_by(made.secret)
    assert pointers(await meter.update_webhook(made.webhook_id, kinds=[])) == {"/kinds"}


async def test_an_endpoint_that_answered_410_can_be_enabled_again(way: tuple[Post, Credits], hook: Receiver) -> None:
    office, meter = way
    made = done(await meter.create_webhook(hook.url))
    hook.answers = [(410, {})]
    done(await meter.test_webhook(made.webhook_id))
    await office.deliver()
    assert done(await meter.webhooks()).items[0].state == "disabled"
    assert done(await meter.update_webhook(made.webhook_id)).state == "enabled"


async def test_the_log_of_deliveries_and_a_retry(way: tuple[Post, Credits], hook: Receiver) -> None:
    office, meter = way
    done(await meter.create_webhook(hook.url))
    hook.answers = [(500, {}), (410, {})]
    for user in "abc":
        done(await meter.add(user, 1))
        done(await meter.deduct(user, 1))
        await office.advance(1)
        await office.deliver()
    page = done(await meter.notifications(limit=2))
    rest = done(await meter.notifications(limit=2, cursor=page.next_cursor or ""))
    assert [(item.user_id, item.state) for item in (*page.items, *rest.items)] == [("b", "failed"), ("a", "due")]
    (failed,) = done(await meter.notifications(user_id="b", state="failed")).items
    assert (failed.status, failed.attempts, failed.kind) == (410, 1, "credits_exhausted")
    assert done(await meter.retry_notification(failed.notification_id)).state == "due"
    assert done(await meter.notifications(state="delivered")).items == []
    assert refusal(await meter.retry_notification("nothing")).code == "NOTIFICATION_NOT_FOUND"
