"""Who guesses API keys is stopped in the sidecar, before Redis; who has one already is not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from meter.api.attempts import KeyAttempts
from meter.api_key import new_api_key, read_api_key
from meter.contract.keys import IssuedKey
from meter.http.rendered import Answered
from meter.testing import app_in_step, meter_in_step
from tests.api.sidecar import problem_members
from tests.keys.conftest import mistyped
from tests.keys.test_auth import Guarded
from tests.servers import fake_server


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    server = fake_server()
    made = asyncio.run(meter_in_step(server.fake).create_key(scopes=["admin:read", "admin:write"]))
    assert isinstance(made, IssuedKey) and made.key
    with TestClient(app_in_step(server.fake, partitions=1, auth="keys", key_failures_max=3)) as http:
        found = Guarded(http, server.client)
        found.text = made.key
        yield found


def guess() -> str:
    """A key without a slip in it, which nobody has."""
    return new_api_key("u", is_test=True)[0]


@pytest.mark.parametrize("path", ["/credits/balance/u", "/credits/plans", "/me/balance"])
def test_too_many_guesses_are_refused_and_known_keys_are_not(guarded: Guarded, path: str) -> None:
    """On the hot lane's calls, on others and below /me; slips of a key count like guesses."""
    guarded.add("u", 5)
    late = guarded.issue("u", scopes=["read:self"])["key"]
    fresh = guarded.issue(None, scopes=["admin:read"])["key"]
    for text in (guess(), mistyped(guess()), guess()):
        guarded.invalid(guarded.by(text, "GET", path))

    for text in (guess(), mistyped(guess()), late, fresh):
        refused = guarded.by(text, "GET", path)
        wait = problem_members(refused, 429, "rate-limited")["retry_after_ms"]
        assert 0 < wait <= 20_000 and refused.headers["retry-after"] in ("19", "20")
    assert guarded.get("/balance/u")["available"] == 5


def test_what_a_gateways_clients_present_does_not_stop_the_gateway(guarded: Guarded) -> None:
    guarded.add("u", 5)
    headers = {"x-meter-key": guarded.text}
    for _ in range(6):
        answer = guarded.by(guess(), "POST", "/gateway/authorize", headers=headers)
        assert answer.status == 401
    good = guarded.issue("u")["key"]
    let_in = guarded.by(good, "POST", "/gateway/authorize", headers=headers)
    assert let_in.status == 402, "100 are more than there are"


def test_a_key_that_was_revoked_is_known_no_more() -> None:
    attempts, text = KeyAttempts(1), guess()
    key = attempts.read("a", text)
    attempts.let_in(key)
    attempts.refused("a")
    assert attempts.read("a", text) == key
    attempts.refused("a", key)
    with pytest.raises(Answered) as raised:
        attempts.read("a", text)
    assert raised.value.rendered.status == 429
    assert attempts.read("b", text) == key, "another address may try"


def test_none_are_counted_where_nobody_wants_it() -> None:
    attempts, text = KeyAttempts(0), guess()
    for _ in range(1000):
        attempts.refused("a")
    assert attempts.read("a", text) == read_api_key(text)
