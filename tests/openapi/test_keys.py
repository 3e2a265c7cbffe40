"""P17: every call that changes something takes the Idempotency-Key, or is in the list of those that need none."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from meter.contract.calls import BY_NAME, CALLS
from tests.openapi import story
from tests.openapi.story import EXAMPLES, call, path_of, sidecar, tell_the_story, told_again

KEYED = [row.name for row in CALLS if row.keyed]
WITHOUT = {
    *(
        "expire",
        "allocate",
        "apply_pending",
        "remind",
        "deliver",
        "roll_up",
        "warn",
        "buy",
        "rotate",
    ),  # done twice they do nothing twice
    "quote",  # it changes nothing
    "anonymise",  # done twice it does nothing twice, and a key might name whom nothing is to name
}
OTHER_BODIES: dict[str, Mapping[str, object]] = {
    **story.OTHER_BODIES,
    "batch": {"operations": [{"op": "deduct", "user_id": "user-1", "amount": 2}]},
}
"""Other members for a key that was used; a description for most."""


class Asked:
    """One call with a key, as the story has come to it."""

    def __init__(self, client: TestClient, name: str) -> None:
        self._client, self._name = client, name
        self._path = path_of(name, list(tell_the_story(client, until=name)))
        self._body = dict(EXAMPLES[name].body or {})
        if name == "refund":
            self._body["transaction_id"] = call(client, "deduct").json()["transaction_id"]
        if name == "create_plan":
            self._body.pop("plan_id")

    def __call__(self, **more: Any) -> Response:
        headers = {"idempotency-key": "key-of-p17"}
        return call(self._client, self._name, {**self._body, **more}, headers=headers, path=self._path)

    def state(self) -> object:
        """What every later reader sees of what the calls did."""
        reads = (
            "/history/user-1?limit=500",
            "/history/user-2?limit=500",
            "/plans",
            "/webhooks",
            "/notifications",
            "/keys",
            "/codes",
        )
        found = [self._client.get(f"/credits{path}").json() for path in (*reads, "/subscriptions/user-2")]
        return [*found, self._client.get("/test-clock").json() if self._name == "set_clock" else None]


def test_p17_a_call_that_changes_something_takes_the_key_or_says_why_not() -> None:
    assert {row.name for row in CALLS if row.method != "GET" and not row.keyed} == WITHOUT


@pytest.mark.parametrize("name", KEYED)
def test_p17_the_same_again_is_answered_byte_for_byte_and_done_once(name: str) -> None:
    with sidecar(store_url="memory://") as client:
        asked = Asked(client, name)
        first = asked()
        assert first.status_code == BY_NAME[name].status, first.text
        state = asked.state()
        again = asked()
        assert (again.status_code, again.content) == (first.status_code, told_again(first.content))
        assert again.headers["idempotency-replayed"] == "true"
        assert asked.state() == state, "it was done twice"


@pytest.mark.parametrize("name", [name for name in KEYED if BY_NAME[name].body is not None])
def test_p17_with_another_body_it_is_refused_and_changes_nothing(name: str) -> None:
    with sidecar(store_url="memory://") as client:
        asked = Asked(client, name)
        assert asked().status_code == BY_NAME[name].status
        state = asked.state()
        other = asked(**OTHER_BODIES.get(name, {"description": "other"}))
        assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
        assert asked.state() == state


@pytest.mark.parametrize("name", KEYED)
def test_p17_sent_four_times_at_once_it_is_done_once(name: str) -> None:
    with sidecar(store_url="memory://") as client:
        asked = Asked(client, name)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: asked(), range(4)))
        done = [answer for answer in answers if answer.status_code == BY_NAME[name].status]
        assert done and all(answer.status_code in (BY_NAME[name].status, 409, 503) for answer in answers)
        assert len({told_again(answer.content) for answer in done}) == 1
        assert [answer.headers.get("idempotency-replayed") for answer in done].count(None) == 1
