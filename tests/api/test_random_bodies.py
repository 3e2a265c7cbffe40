"""Bodies drawn by lot: no answer is a 5xx, and a refused request writes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from string import Formatter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from meter.contract.call import CREDITS
from meter.contract.calls import CALLS
from meter.testing import fake_app
from tests import invariants
from tests.api.sidecar import Api
from tests.partition import T0, WINDOW, Partition, dump
from tests.servers import fake_server

ROUTES = [row for row in CALLS if row.body is not None and row.prefix == CREDITS]

numbers = st.one_of(
    st.integers(-3, 30),
    st.integers(),
    st.floats(),
    st.decimals(0, 100, places=6).map(str),
    st.sampled_from([9007199254.740991, "9007199254.740991", 1e14, 1e308, 2**53, 2**64, 10**40, "1e3", "-0", True]),
)
texts = st.one_of(
    st.text(max_size=20), st.sampled_from(["u", "v", "org/u", "g", "r", "a b", "{p0}", "deduct", "partial", "cap"])
)
times = st.one_of(
    st.datetimes().map(lambda time: time.isoformat() + "Z"), st.sampled_from(["2030-01-01T00:00:00Z", "now", 0])
)
anything = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts, times),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
amounts = st.one_of(*[st.integers(0, 5)] * 4, st.sampled_from([0.5, "1.25", "0.000001"]), numbers)
reservations = st.sampled_from([f"r{n}" for n in range(40)])
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "user_id": st.sampled_from(["u", "v", "org/u"]),
    "amount": amounts,
    "add_amount": amounts,
    "grant_id": st.sampled_from(["g", "h"]),
    "reservation_id": reservations,
    "transaction_id": st.sampled_from(["0-1-lane-1", "0-3-x-1", "9-9-9-9", "x"]),
    "priority": st.integers(-1, 1_000_000),
    "effective_at": times,
    "expires_at": times,
    "ttl_seconds": amounts,
    "shortfall": st.sampled_from(["reject", "partial", "overdraft"]),
    "over": st.sampled_from(["cap", "reject", "overdraft"]),
    "description": texts,
    "metadata": st.dictionaries(texts, anything, max_size=3),
    "overdraft_limit": amounts,
    "low_credit_thresholds": st.lists(amounts, max_size=9),
    "suspended": st.just(False),
    "name": texts,
    "credit_limit": amounts,
    "price": amounts,
    "billing_period": st.sampled_from(["daily", "monthly", "yearly", "weekly"]),
    "validity_days": st.integers(-1, 400),
    "plan_id": st.sampled_from(["p", "q"]),
    "webhook_id": st.sampled_from(["w", "x"]),
    "rate_card_id": st.sampled_from(["default", "own"]),
    "rate_card": st.sampled_from(["default", "own"]),
    "code_id": st.sampled_from(["code_0123456789abcdef", "c"]),
    "budget_id": st.sampled_from(["b", "daily"]),
    "key_id": st.sampled_from(["key_0123456789abcdef0123", "k"]),
    "active": st.booleans(),
    "auto_renew": st.booleans(),
    "time_zone": st.sampled_from(["UTC", "Europe/Berlin", "Mars/Olympus"]),
    "anchor_at": times,
    "atomic": st.booleans(),
}


def operations(op: str, required: str, optional: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"op": st.just(op), **{name: MEMBERS[name] for name in required.split()}},
        optional={name: MEMBERS[name] for name in optional.split()},
    )


MEMBERS["operations"] = st.lists(
    st.one_of(
        operations("deduct", "user_id amount", "shortfall metadata"),
        operations("reserve", "user_id amount", "reservation_id ttl_seconds"),
        operations("commit", "reservation_id", "amount over description"),
        operations("release", "reservation_id", "description"),
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, str, bytes, str | None]:
    """Method, path, body and key of a call that is right in most of its members."""
    row = draw(st.sampled_from(ROUTES))
    assert row.body is not None
    body: Any = {}
    for name, field in row.body.model_fields.items():
        if draw(st.integers(0, 9)) < (10 if field.is_required() else 3):
            body[name] = draw(anything if draw(st.integers(0, 19)) == 0 else MEMBERS.get(name, anything))
    if draw(st.integers(0, 19)) == 0:
        body = draw(anything)
    content = json.dumps(body).encode()
    if draw(st.integers(0, 19)) == 0:
        cut = draw(st.integers(0, len(content)))
        content = content[:cut] + draw(st.binary(max_size=3)) + content[cut:]
    ids = {name: draw(MEMBERS[name]) for _, name, _, _ in Formatter().parse(row.path) if name is not None}
    key = draw(st.none() | st.sampled_from(["k1", "k2", "k 3"]))
    return row.method, CREDITS + row.path.format_map(ids), content, key


@pytest.fixture(scope="module")
def sidecar() -> Iterator[Api]:
    """A sidecar on fakeredis whose clock stands, with a user who has credits and reservations."""
    server = fake_server()
    partition = Partition(server.client)
    partition.open()
    partition.freeze(T0)
    server.client.hset(partition.keys.meta, mapping={"recent_since": T0})
    with TestClient(fake_app(server.fake, store_url="memory://"), raise_server_exceptions=False) as http:
        api = Api(http, server.client)
        for user_id in ("u", "v"):
            api.post("/add", {"user_id": user_id, "amount": 1000})
        for n in range(20):
            api.post("/reservations", {"user_id": "u", "amount": 5, "reservation_id": f"r{n}"}, status=201)
        yield api
    invariants.check(server.client, window_ms=WINDOW)


@settings(
    max_examples=int(os.environ.get("METER_TEST_EXAMPLES", "150")),
    deadline=None,
    derandomize="METER_TEST_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(call=calls())
def test_no_body_is_a_server_fault_and_a_refusal_writes_nothing(
    sidecar: Api, call: tuple[str, str, bytes, str | None]
) -> None:
    method, path, content, key = call
    before = dump(sidecar.client)
    answer = sidecar.call(method, path, content=content, key=key)
    assert answer.status < 500, answer.raw
    if answer.status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert dump(sidecar.client) == before
    elif path.endswith("/batch"):
        statuses = [result["status"] for result in answer.body["results"]]
        assert max(statuses) < 500
        if min(statuses) >= 400:
            assert dump(sidecar.client) == before
