"""METER_AUTH=keys: a hostile client against every route that there is; operators, users, gateways; who did what."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from starlette.routing import BaseRoute, Route
from starlette.testclient import TestClient

from meter.api.gate import ADMIN_READ, ADMIN_WRITE, OF_USERS, scope_of
from meter.app import parts_of, routes_of
from meter.contract.call import ME
from meter.contract.calls import CALLS
from meter.contract.keys import IssuedKey
from meter.http.endpoint import AnyMethod, Endpoint
from meter.runtime import Runtime
from meter.testing import app_in_step, fake_redis, fake_settings, meter_in_step
from tests.api.sidecar import Answer, problem_members
from tests.keys.conftest import Counter, mistyped
from tests.openapi.story import EXAMPLES
from tests.servers import fake_server

FOR_EVERYBODY = {"/", "/livez", "/readyz", "/problems/{slug}", "/openapi.json", "/docs", "/docs/docs.js"}
SIGNED = "/payments/events"
"""Its events carry the signature of their provider: tests/top_ups."""
CONSOLE = "/console"
"""Its pages want a login: tests/console/test_door.py."""
OF_NO_CALL = {
    ("GET", "/metrics"): ADMIN_READ,
    ("POST", "/gateway/authorize"): ADMIN_WRITE,
    ("POST", "/gateway/authorize/{rest:path}"): ADMIN_WRITE,
    ("POST", "/gateway/commit"): ADMIN_WRITE,
    ("POST", "/gateway/logs"): ADMIN_WRITE,
}
"""Routes beside those of the table of calls, with what an operator's key needs for them."""
NEEDS = {
    **{(call.method, call.prefix + call.path): scope_of(call) for call in CALLS if call.prefix != ME},
    **OF_NO_CALL,
}
OF_ONESELF = {(call.method, call.prefix + call.path) for call in CALLS if call.prefix == ME}
NAMES = {(call.method, call.prefix + call.path): call.name for call in CALLS}


class Guarded(Counter):
    """A sidecar that asks for keys. `text` is the key by which calls are made."""

    text = ""

    def call(self, method: str, path: str, body: object = None, **more: Any) -> Answer:
        return self.by(self.text, method, path, body, **more)

    def by(self, text: str, method: str, path: str, body: object = None, **more: Any) -> Answer:
        """A call by another key; "" without one."""
        headers = {**(more.pop("headers", None) or {}), **({"authorization": f"Bearer {text}"} if text else {})}
        return super().call(method, path, body, headers=headers, **more)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    """u, v and u/child have 5 credits each; calls are an operator's."""
    server = fake_server()
    meter = meter_in_step(server.fake)
    made = asyncio.run(meter.create_key(scopes=["admin:read", "admin:write"]))
    assert isinstance(made, IssuedKey) and made.key
    with TestClient(app_in_step(server.fake, partitions=1, auth="keys")) as http:
        found = Guarded(http, server.client)
        found.text = made.key
        for user in ("u", "v", "u/child"):
            found.add(user, 5)
        yield found


def everything() -> list[tuple[str, str]]:
    """Method and path of each route of a sidecar, of those that take any method one."""

    def of(route: BaseRoute) -> list[tuple[str, str]]:
        assert isinstance(route, Route), route
        if isinstance(route.endpoint, Endpoint):
            return [(method, route.path) for method in route.endpoint._methods]
        return [("POST" if isinstance(route.endpoint, AnyMethod) else "GET", route.path)]

    parts = parts_of(Runtime(fake_settings(), fake_redis(fake_server().fake), role="sidecar"))
    found = [found for route in routes_of(parts) for found in of(route)]
    elsewhere = {*FOR_EVERYBODY, SIGNED}
    ours = [(method, path) for method, path in found if path not in elsewhere and not path.startswith(CONSOLE)]
    return [(method, path.replace(":any_text}", "}")) for method, path in ours]


def test_every_route_is_in_the_table_of_what_it_needs() -> None:
    assert set(everything()) == set(NEEDS) | OF_ONESELF


@pytest.mark.parametrize(("method", "path"), everything())
def test_a_stranger_a_user_and_an_operator_who_may_only_read_are_kept_out(
    guarded: Guarded, method: str, path: str
) -> None:
    name = NAMES.get((method, path), "")
    example = EXAMPLES[name] if name else None
    place = path.replace("{rest:path}", "v1/chat").format(**(example.path if example else {}))
    body = None if example is None else example.body
    users = guarded.issue("u", scopes=["spend"])["key"]
    reader = guarded.issue(None, scopes=["admin:read"])["key"]
    before = len(guarded.entries())

    stranger = guarded.by("", method, place, body, headers={"x-user-id": "user-1"})
    assert problem_members(stranger, 401, "missing-identity") == {}
    assert stranger.headers["www-authenticate"] == 'Bearer realm="meter"'
    guarded.invalid(guarded.by(mistyped(users), method, place, body))
    if (method, path) in OF_ONESELF:
        return
    needed = NEEDS[method, path]
    if name not in OF_USERS:
        assert problem_members(guarded.by(users, method, place, body), 403, "key-not-allowed") == {"scope": needed}
    read = guarded.by(reader, method, place, body)
    if needed == ADMIN_READ:
        assert read.status not in (401, 403), read.raw
    else:
        assert problem_members(read, 403, "key-not-allowed") == {"scope": ADMIN_WRITE}
    assert len(guarded.entries()) == before, "something was changed"


@pytest.mark.parametrize("path", sorted(FOR_EVERYBODY - {"/problems/{slug}"}))
def test_probes_and_the_document_are_for_everybody(guarded: Guarded, path: str) -> None:
    assert guarded.by("", "GET", path).status == 200


def test_a_user_spends_for_itself_and_its_rows_say_who_asked(guarded: Guarded) -> None:
    made = guarded.issue("u")
    text, key_id = made["key"], made["key_id"]

    charged = guarded.by(text, "POST", "/credits/deduct", {"amount": 1})
    assert (charged.status, charged.body["user_id"], charged.body["available"]) == (200, "u", 4)
    held = guarded.by(text, "POST", "/credits/reservations", {"user_id": "u", "amount": 2, "reservation_id": "job"})
    assert (held.status, held.body["reservation_id"]) == (201, "job")
    assert guarded.by(text, "POST", "/credits/quote", {"amount": 1}).body["would"] == "ok"
    assert guarded.by(text, "GET", "/credits/reservations/job").body["state"] == "open"
    assert guarded.by(text, "POST", "/credits/reservations/job/extend", {"ttl_seconds": 60}).status == 200
    done = guarded.by(text, "POST", "/credits/reservations/job/commit", {"amount": 1})
    assert (done.status, done.body["reservation_id"], done.body["charged"]) == (200, "job", 1)
    for user in ("v", "u/child"):
        asked = {"user_id": user, "amount": 1}
        problem_members(guarded.by(text, "POST", "/credits/deduct", asked), 400, "invalid-id")
        problem_members(guarded.by(text, "POST", "/credits/quote", asked), 400, "invalid-id")
    rows = guarded.get("/history/u")["items"]
    assert [(row["kind"], row["actor"], row["key_id"]) for row in rows[:4]] == [
        ("commit", key_id, key_id),
        ("extend", key_id, None),
        ("reserve", key_id, key_id),
        ("deduct", key_id, key_id),
    ]


def test_what_is_somebody_elses_is_as_unknown(guarded: Guarded) -> None:
    """Reservations of others, and ids and keys that others chose; those below its own path are its own."""
    mine, theirs = guarded.issue("u")["key"], guarded.issue("v")["key"]
    ours, chosen, child = (
        guarded.post("/reservations", {"user_id": user, "amount": 1, **more}, status=201)["reservation_id"]
        for user, more in (("v", {}), ("v", {"reservation_id": "job"}), ("u/child", {}))
    )
    for name in (ours, chosen):
        for verb, body in (("commit", {"amount": 1}), ("release", None), ("extend", {"ttl_seconds": 9})):
            answer = guarded.by(mine, "POST", f"/credits/reservations/{name}/{verb}", body)
            assert problem_members(answer, 404, "reservation-not-found") == {}, verb
        problem_members(guarded.by(mine, "GET", f"/credits/reservations/{name}"), 404, "reservation-not-found")
    assert guarded.get(f"/reservations/{ours}")["state"] == "open"
    assert guarded.by(mine, "POST", f"/credits/reservations/{child}/release").status == 200

    def reserve(text: str, **more: str) -> Answer:
        return guarded.by(text, "POST", "/credits/reservations", {"amount": 1, "reservation_id": "same"}, **more)

    first, second = reserve(mine), reserve(theirs)
    assert (first.status, second.status, first.body["user_id"], second.body["user_id"]) == (201, 201, "u", "v")
    assert reserve(mine).replayed
    for text, user in ((mine, "u"), (theirs, "v")):
        charged = guarded.by(text, "POST", "/credits/deduct", {"amount": "0.5"}, key="k")
        assert (charged.status, charged.replayed, charged.body["user_id"]) == (200, False, user)
        assert guarded.by(text, "POST", "/credits/deduct", {"amount": "0.5"}, key="k").replayed
    by_operator = guarded.call("POST", "/credits/deduct", {"user_id": "u", "amount": 1}, key="k")
    assert (by_operator.status, by_operator.replayed) == (200, False)
    assert guarded.by(theirs, "POST", "/credits/reservations/same/commit").body["user_id"] == "v"
    assert guarded.by(mine, "POST", "/credits/reservations/same/commit").body["user_id"] == "u"


@pytest.mark.parametrize("key", ["k" * 128, "k" * 117, "k"])
def test_a_long_key_of_a_users_is_a_key_too(guarded: Guarded, key: str) -> None:
    text = guarded.issue("u")["key"]

    answers = [guarded.by(text, "POST", "/credits/deduct", {"amount": 1}, key=key) for _ in range(2)]
    assert [(answer.status, answer.replayed) for answer in answers] == [(200, False), (200, True)]
    assert answers[0].raw == answers[1].raw


def test_every_change_names_the_key_that_asked(guarded: Guarded) -> None:
    made = guarded.issue(None, scopes=["admin:write"], name="billing")
    text, key_id = made["key"], made["key_id"]

    assert guarded.by(text, "POST", "/credits/add", {"user_id": "u", "amount": 1}).status == 200
    named = guarded.by(text, "PATCH", "/credits/users/u", {"suspended": False}, headers={"x-actor": "ada"})
    assert named.status == 200
    [first, second] = guarded.get("/history/u?limit=2")["items"]
    assert [first["actor"], second["actor"]] == [f"{key_id}:ada", key_id]
    plan = {"name": "Pro", "credit_limit": 1, "price": 1, "billing_period": "monthly"}
    assert guarded.by(text, "POST", "/credits/plans", plan).status == 201
    [change, *_] = guarded.get("/events?kind=change")["items"]
    assert change["detail"]["actor"] == key_id
    problem_members(guarded.by(text, "GET", "/credits/balance/u"), 403, "key-not-allowed")


@pytest.mark.parametrize("actor", ["", "a b", 'a"b', "a" * 129, "a" * 120])
def test_an_actor_that_can_be_none_is_refused_behind_a_key_too(guarded: Guarded, actor: str) -> None:
    """An empty one, and one that is too long with the key_id in front, are no less wrong than without keys."""
    body = {"user_id": "u", "amount": 1}
    answer = guarded.call("POST", "/credits/add", body, headers={"x-actor": actor})
    assert (answer.status, answer.body["type"]) == (400, "/problems/invalid-actor")
    spender = guarded.issue("u")["key"]
    answer = guarded.by(spender, "POST", "/credits/deduct", body, headers={"x-actor": actor})
    assert answer.status == (200 if len(actor) == 120 else 400), "a user's own is not kept"


def test_an_operators_key_ends_with_the_next_call(guarded: Guarded) -> None:
    made = guarded.issue(None, scopes=["admin:read"])

    assert guarded.by(made["key"], "GET", "/credits/balance/u").status == 200
    guarded.post(f"/keys/{made['key_id']}/revoke")
    guarded.invalid(guarded.by(made["key"], "GET", "/credits/balance/u"))


def test_a_gateway_sends_its_own_key_beside_its_clients(guarded: Guarded) -> None:
    text = guarded.issue("u")["key"]
    gateways = {"x-meter-key": guarded.text, "x-estimated-tokens": "1"}

    allowed = guarded.by(text, "GET", "/gateway/authorize", headers=gateways)
    assert (allowed.status, allowed.headers["x-user-id"]) == (200, "u")
    by_header = guarded.by("", "GET", "/gateway/authorize", headers={**gateways, "x-user-id": "v"})
    assert by_header.status == 200
    hold = {"x-reservation-id": allowed.headers["x-reservation-id"], "x-credits-actual": "1"}
    assert guarded.by(text, "GET", "/gateway/commit", headers=hold).status == 403
    assert guarded.by("", "GET", "/gateway/commit", headers={**hold, **gateways}).status == 200
    assert guarded.get("/balance/u")["available"] == Decimal(4)


def test_the_document_says_how_a_caller_says_who_it_is(guarded: Guarded) -> None:
    document = guarded.by("", "GET", "/openapi.json").body

    schemes = document["components"]["securitySchemes"]
    assert {name: scheme["type"] for name, scheme in schemes.items()} == {
        "bearer": "http",
        "x-api-key": "apiKey",
        "X-Meter-Key": "apiKey",
    }
    assert [next(iter(one), None) for one in document["security"]] == [None, *schemes]
