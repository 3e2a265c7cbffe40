"""The API key of a client through the proxy: it pays, it stays here, and the upstream gets its own (docs/keys.md)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fakeredis import FakeServer

from meter import Meter
from meter.contract.keys import IssuedKey
from meter.testing import fake_meter
from tests.proxy.proxied import proxied
from tests.proxy.serving import fetch, request
from tests.proxy.upstream import Asked, Reply

UPSTREAMS = "Bearer sk-of-the-owner"


@pytest.fixture
async def bank(meter_server: FakeServer) -> AsyncIterator[Meter]:
    """A meter with a store, where user-1 has 1000 credits."""
    async with fake_meter(meter_server, store_url="memory://") as meter:
        assert await meter.add("user-1", 1000)
        yield meter


async def issued(bank: Meter, user_id: str = "user-1", **more: Any) -> IssuedKey:
    made = await bank.create_key(user_id, **more)
    assert isinstance(made, IssuedKey) and made.key
    return made


async def used(_: Asked, reply: Reply) -> None:
    await reply.json(b'{"usage": {"total_tokens": 15}}')


def asking(*headers: str, target: str = "/v1/things", method: str = "GET") -> bytes:
    return request(method, target, *headers, user=None)


@pytest.mark.parametrize(
    ("header", "upstreams"),
    [("Authorization: Bearer {}", ("authorization", UPSTREAMS)), ("x-api-key: {}", ("x-api-key", "sk-of-the-owner"))],
)
async def test_it_pays_and_the_upstream_gets_its_own_key(bank: Meter, header: str, upstreams: tuple[str, str]) -> None:
    key = await issued(bank)
    async with proxied(used, bank, upstream_authorization=UPSTREAMS) as proxy:
        answer = await fetch(proxy.port, asking(header.format(key.key)))
        asked = await proxy.upstream.was_asked()
        await proxy.settles_at(985)

    assert answer.status == 200
    assert upstreams in asked.headers and asked.all("x-user-id") == ["user-1"]
    assert len(asked.all("authorization")) + len(asked.all("x-api-key")) == 1
    assert str(key.key) not in json.dumps(asked.headers)
    found = await bank.history("user-1", kind="commit")
    assert [(row.kind, row.key_id) for row in found.items] == [("commit", key.key_id)]  # type: ignore[union-attr]


async def test_it_goes_to_nobody_where_the_upstream_has_none_and_on_paths_that_are_not_metered(bank: Meter) -> None:
    text = (await issued(bank)).key
    async with proxied(used, bank) as proxy:
        assert (await fetch(proxy.port, asking(f"Authorization: Bearer {text}"))).status == 200
        assert (await proxy.upstream.was_asked()).all("authorization") == []
    options: dict[str, Any] = {"upstream_authorization": UPSTREAMS, "skip_paths": ("/open",)}
    async with proxied(used, bank, **options) as proxy:
        assert (await fetch(proxy.port, asking(f"x-api-key: {text}", target="/open/x"))).status == 200
        asked = await proxy.upstream.was_asked()
        assert (asked.all("x-api-key"), asked.all("authorization")) == ([], []), "nobody looked whose it is"


async def test_a_key_of_the_upstreams_passes_untouched(bank: Meter) -> None:
    async with proxied(used, bank, upstream_authorization=UPSTREAMS) as proxy:
        answer = await fetch(proxy.port, request("GET", "/x", "Authorization: Bearer sk-mine", "x-api-key: sk-other"))
        asked = await proxy.upstream.was_asked()

    assert answer.status == 200
    assert (asked.all("authorization"), asked.all("x-api-key")) == (["Bearer sk-mine"], ["sk-other"])


async def test_what_refuses_it_reaches_no_upstream(bank: Meter) -> None:
    key, revoked, blind = (await issued(bank), await issued(bank), await issued(bank, scopes=["read:self"]))
    options: dict[str, Any] = {"upstream_authorization": UPSTREAMS}
    async with proxied(used, bank, **options) as proxy:

        async def told(*headers: str, **more: str) -> int:
            return (await fetch(proxy.port, asking(*headers, **more))).status

        assert await told(f"x-api-key: {revoked.key}") == 200
        assert await bank.revoke_key(revoked.key_id)
        models = {"target": "/v1/models"}  # free for those who are known
        for more in ({}, models):
            assert await told(f"x-api-key: {revoked.key}", **more) == 401
            assert await told(f"x-api-key: {key.key}x", **more) == 401
            assert await told(f"x-api-key: {blind.key}", **more) == 403
            assert await told(f"x-api-key: {key.key}", "X-User-Id: user-2", **more) == 400
            assert await told(f"x-api-key: {key.key}", f"Authorization: Bearer {blind.key}", **more) == 400
        assert await told(f"x-api-key: {key.key}", "X-User-Id: user-1") == 200
        assert await told(f"x-api-key: {key.key}", **models) == 200
        assert len(proxy.upstream.asked) == 3
