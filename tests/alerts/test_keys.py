"""P17: an Idempotency-Key on every call about webhooks, and no secret in a kept answer. X10: how many there may be."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from meter.api.webhooks import OLD_SECRETS_MAX
from meter.store.rows import AnswerRow, WebhookRow
from tests.alerts.conftest import START
from tests.alerts.post import Post, post
from tests.alerts.receiver import Receiver
from tests.plans.town import done, refusal

URL = "https://example.com/hook"


class Caller:
    """Calls over HTTP with a key, and their whole answers."""

    def __init__(self, office: Post) -> None:
        self._office = office

    def __call__(self, method: str, path: str, body: object = None, key: str = "k") -> Any:
        return self._office.http.request(method, "/credits" + path, json=body, headers={"idempotency-key": key})


@pytest.fixture
def call(office: Post) -> Caller:
    """A caller of the office."""
    return Caller(office)


async def rows(office: Post) -> list[WebhookRow]:
    return await office.town.store.find(WebhookRow, {}, order_by="webhook_id", limit=9)


async def test_the_same_creation_answers_byte_for_byte_with_its_secret(office: Post, call: Caller) -> None:
    first = call("POST", "/webhooks", {"url": URL, "kinds": ["low_credits"]})
    again = call("POST", "/webhooks", {"url": URL, "kinds": ["low_credits"]})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content and first.json()["secret"].startswith("whsec_")
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    assert len(await rows(office)) == 1
    other = call("POST", "/webhooks", {"url": URL, "kinds": ["credits_expired"]})
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert call("POST", "/webhooks", {"url": URL}, key="another").json()["code"] == "WEBHOOK_EXISTS"


async def test_no_kept_answer_has_a_secret(office: Post, call: Caller) -> None:
    made = call("POST", "/webhooks", {"url": URL}, key="create").json()
    rotated = call("POST", f"/webhooks/{made['webhook_id']}/rotate", key="rotate").json()
    for key in ("create", "rotate"):
        kept = await office.town.store.get(AnswerRow, key)
        assert kept is not None
        assert "whsec_" not in kept.body
        assert made["secret"].removeprefix("whsec_") not in kept.body
        assert rotated["secret"].removeprefix("whsec_") not in kept.body


async def test_a_repeated_creation_shows_its_secret_as_long_as_the_endpoint_signs_with_it(
    office: Post, call: Caller
) -> None:
    made = call("POST", "/webhooks", {"url": URL}, key="create").json()
    call("POST", f"/webhooks/{made['webhook_id']}/rotate", key="rotate")
    assert call("POST", "/webhooks", {"url": URL}, key="create").json()["secret"] == made["secret"]
    await office.advance(86_400)
    assert call("POST", "/webhooks", {"url": URL}, key="create").json() == {**made, "secret": None}


async def test_a_repeated_rotation_rotates_once(office: Post, call: Caller) -> None:
    """A lost answer and its retry: the receiver still has the first secret."""
    made = call("POST", "/webhooks", {"url": URL}, key="create").json()
    path = f"/webhooks/{made['webhook_id']}/rotate"
    first, again = call("POST", path), call("POST", path)
    assert (again.status_code, again.content) == (200, first.content)
    (row,) = await rows(office)
    assert row.secret == first.json()["secret"]
    assert isinstance(row.old_secrets, list) and len(row.old_secrets) == 1
    assert call("POST", f"/webhooks/{made['webhook_id']}/test").json()["code"] == "IDEMPOTENCY_KEY_REUSED"


async def test_changes_tests_and_retries_are_repeated_without_effect(office: Post, call: Caller) -> None:
    made = call("POST", "/webhooks", {"url": URL}, key="create").json()
    path = f"/webhooks/{made['webhook_id']}"
    resting = call("PUT", path, {"enabled": False}, key="put")
    call("PUT", path, {"enabled": True}, key="later")
    assert call("PUT", path, {"enabled": False}, key="put").content == resting.content
    assert [row.state for row in await rows(office)] == ["enabled"]

    sent = [call("POST", f"{path}/test", key="test") for _ in range(2)]
    assert sent[0].content == sent[1].content and len(await office.deliveries()) == 1
    assert call("POST", f"{path}/test", key="second").json()["notification_id"] != sent[0].json()["notification_id"]

    notification = sent[0].json()["notification_id"]
    retried = [call("POST", f"/notifications/{notification}/retry", key="retry") for _ in range(2)]
    assert retried[0].content == retried[1].content

    gone = [call("DELETE", path, key="delete") for _ in range(2)]
    assert gone[0].content == gone[1].content and gone[0].json()["state"] == "deleted"
    assert call("DELETE", path, key="unused").status_code == 404


async def test_by_the_python_calls(office: Post) -> None:
    meter = office.town.meter
    made = [done(await meter.create_webhook(URL, idempotency_key="k1")) for _ in range(2)]
    assert made[0].secret == made[1].secret and [one.replayed for one in made] == [False, True]
    place = made[0].webhook_id
    rotated = [done(await meter.rotate_webhook(place, idempotency_key="k2")) for _ in range(2)]
    assert rotated[0].secret == rotated[1].secret != made[0].secret
    changed = [done(await meter.update_webhook(place, description="x", idempotency_key="k3")) for _ in range(2)]
    assert changed[0].updated_at == changed[1].updated_at
    tested = [done(await meter.test_webhook(place, idempotency_key="k4")) for _ in range(2)]
    retried = await meter.retry_notification(tested[1].notification_id, idempotency_key="k5")
    assert done(retried).notification_id == tested[0].notification_id
    assert [done(await meter.delete_webhook(place, idempotency_key="k6")).replayed for _ in range(2)] == [False, True]
    assert refusal(await meter.create_webhook(URL, kinds=["low_credits"], idempotency_key="k1")).status == 422


async def test_two_creations_with_one_key_at_once_make_one_endpoint(office: Post) -> None:
    meter = office.town.meter
    made = await asyncio.gather(*(meter.create_webhook(URL, idempotency_key="k") for _ in range(5)))
    assert len({done(one).secret for one in made}) == 1
    assert len(await rows(office)) == 1


@pytest.mark.parametrize("rotations", range(1, OLD_SECRETS_MAX + 2))
async def test_rotated_secrets_sign_for_a_day_however_often_one_rotates(
    office: Post, hook: Receiver, rotations: int
) -> None:
    """A retried rotation without a key must not cut off a receiver that has not heard of the first."""
    made = office.add_webhook(hook.url)
    known = [made["secret"]]
    for _ in range(rotations):
        known.append(office.call("POST", f"/webhooks/{made['webhook_id']}/rotate")["secret"])
        await office.advance(3600)
    office.call("POST", f"/webhooks/{made['webhook_id']}/test")
    await office.deliver()
    signing = [hook.received[-1].signed_by(secret) for secret in known]
    assert signing == [n >= len(known) - 1 - OLD_SECRETS_MAX for n in range(len(known))]
    await office.advance(86_400 - 3600 * rotations)
    office.call("POST", f"/webhooks/{made['webhook_id']}/test")
    await office.deliver()
    assert not hook.received[-1].signed_by(known[0])
    assert hook.received[-1].signed_by(known[-1])


async def test_a_rotation_while_deliveries_run_is_never_unsigned_by_the_old_secret(
    office: Post, hook: Receiver
) -> None:
    """Every message of the day is signed by the secret that the receiver had before."""
    made = office.add_webhook(hook.url)
    for _ in range(20):
        office.call("POST", f"/webhooks/{made['webhook_id']}/test")
    hook.may_answer.clear()
    delivery = asyncio.create_task(office.deliver())
    while not hook.received:
        await asyncio.sleep(0.001)
    rotated = await asyncio.to_thread(office.call, "POST", f"/webhooks/{made['webhook_id']}/rotate")
    hook.may_answer.set()
    assert await delivery == 20
    assert all(one.signed_by(made["secret"]) for one in hook.received)
    assert hook.received[-1].signed_by(rotated["secret"])


async def test_there_may_be_so_many_webhooks() -> None:
    """X10: counted with those that rest, refused clearly, and a place is free again when one is deleted."""
    async with post(START, webhooks_max=2) as office:
        first = office.add_webhook(URL)
        office.add_webhook(URL + "/2")
        office.call("PUT", f"/webhooks/{first['webhook_id']}", {"enabled": False})
        refused = office.call("POST", "/webhooks", {"url": URL + "/3"}, status=409)
        assert refused["code"] == "TOO_MANY_WEBHOOKS"
        assert "METER_WEBHOOKS_MAX" in refused["detail"]
        assert office.add_webhook(URL)["secret"] != first["secret"]  # one that rests is made anew in its place
        office.call("DELETE", f"/webhooks/{first['webhook_id']}")
        office.add_webhook(URL + "/3")
        office.call("POST", "/webhooks", {"url": URL}, status=409)


async def test_creations_at_once_do_not_pass_the_bound_together() -> None:
    """X10."""
    async with post(START, webhooks_max=3) as office:
        answers = await asyncio.gather(*(office.town.meter.create_webhook(f"{URL}/{n}") for n in range(12)))
        assert sum(bool(one) for one in answers) == 3
        assert {refusal(one).code for one in answers if not one} == {"TOO_MANY_WEBHOOKS"}
