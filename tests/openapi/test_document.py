"""The OpenAPI document tells the truth: every call, answer and refusal in it is what a running sidecar does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from fakeredis import FakeRedis, FakeServer
from httpx2 import Response
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from openapi_spec_validator import validate
from starlette.testclient import TestClient

from meter.amount import AmountScale
from meter.api.rendering import Renderer
from meter.app import create_app
from meter.contract.calls import BY_NAME, ROWS, Row
from meter.contract.problems import PROBLEMS
from meter.keys import PartitionKeys
from meter.openapi.document import document
from meter.openapi.example import NOW
from meter.openapi.examples import EXAMPLES
from meter.store.memory.store import MemoryStore, open_memory
from meter.store.rows import DeliveryRow, PlanRow, WebhookRow
from meter.testing import fake_app, fake_redis, fake_settings

BODY_MAX = 1024
NOW_MS = "1767268800000"  # NOW
Json = dict[str, Any]

DOCUMENT: Json = json.loads(orjson.dumps(document()))
ROW_NAMES = [row.name for row in ROWS]
WITH_BODY = [row.name for row in ROWS if row.body]
WITH_KEY = [row.name for row in ROWS if row.keyed]


@contextmanager
def sidecar(server: FakeServer | None = None, **overrides: object) -> Iterator[TestClient]:
    """A running sidecar."""
    with TestClient(fake_app(server, body_max_bytes=BODY_MAX, **overrides)) as client:
        yield client


@pytest.fixture
def client() -> Iterator[TestClient]:
    """A sidecar that knows nobody, its clock frozen at the time of the examples."""
    server = FakeServer()
    with sidecar(server, store_url="memory://") as found:
        FakeRedis(server=server).hset(PartitionKeys(0).meta, "clock_ms", NOW_MS)
        yield found


def call(
    client: TestClient,
    name: str,
    body: object = None,
    *,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str | int | float] | None = None,
    content: bytes | None = None,
    path: Mapping[str, str] = MappingProxyType({}),
) -> Response:
    """Sends a call; what is not given comes from its example."""
    row, example = BY_NAME[name], EXAMPLES[name]
    parts = {name: quote(value, safe="") for name, value in {**example.path, **path}.items()}
    url = row.prefix + row.path.format(**parts)
    if content is None and row.body is not None:
        content = orjson.dumps(example.body if body is None else body)
    json_type = {"content-type": "application/json"} if content is not None else {}
    return client.request(
        row.method,
        url,
        params=dict(example.query if query is None else query),
        content=content,
        headers={**json_type, **(headers or {})},
    )


def tell_the_story(client: TestClient, until: str | None = None) -> Iterator[tuple[Row, Response]]:
    """Sends the examples in order, each with the transaction_id of the charge that it means."""
    charge = ""
    for name, example in EXAMPLES.items():
        if name == until:
            return
        body = dict(example.body or {})
        if "transaction_id" in body:
            body["transaction_id"] = charge
        response = call(client, name, body)
        if name == "deduct":
            charge = response.json()["transaction_id"]
        yield BY_NAME[name], response


def operation(name: str) -> Json:
    """What the document says of a call."""
    row = BY_NAME[name]
    found: Json = DOCUMENT["paths"][row.prefix + row.path][row.method.lower()]
    return found


def faults(schema: Json, value: object) -> list[str]:
    """What is wrong with a value, by a schema of the document."""
    whole = {**schema, "components": DOCUMENT["components"]}
    return [error.message for error in OAS31Validator(whole, format_checker=oas31_format_checker).iter_errors(value)]


def answer_schema(row: Row) -> Json:
    schema: Json = operation(row.name)["responses"][str(row.status)]["content"]["application/json"]["schema"]
    return schema


def members(schema: Json) -> set[str]:
    """The members that an object schema names."""
    return set(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"])


def declared(name: str) -> set[str]:
    """The problems that the document says a call can answer."""
    return {
        slug
        for response in operation(name)["responses"].values()
        for slug in response["content"].get("application/problem+json", {}).get("examples", ())
    }


def refusal(name: str, response: Response) -> str:
    """The slug of a refusal, after checking that it is one of the catalogue and that the document declares it."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem = response.json()
    slug = str(problem["type"]).removeprefix("/problems/")
    kind = PROBLEMS[slug]
    assert (response.status_code, problem["status"]) == (kind.status, kind.status)
    assert (problem["title"], problem["code"]) == (kind.title, kind.code)
    said = operation(name)["responses"][str(kind.status)]["content"]["application/problem+json"]
    assert slug in said["examples"]
    assert faults(said["schema"], problem) == []
    return slug


def test_document_is_valid_openapi() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert DOCUMENT["info"]["license"]["identifier"] == "MIT"
    assert DOCUMENT["info"]["version"]


def test_every_call_of_the_surface_and_no_other_is_described() -> None:
    described = {
        (call["operationId"], method.upper(), path)
        for path, methods in DOCUMENT["paths"].items()
        for method, call in methods.items()
        if not {"operating", "gateways"} & set(call["tags"])
    }
    assert described == {(row.name, row.method, row.prefix + row.path) for row in ROWS}


def test_every_tag_is_explained_and_used() -> None:
    used = {tag for methods in DOCUMENT["paths"].values() for call in methods.values() for tag in call["tags"]}
    assert used == {tag["name"] for tag in DOCUMENT["tags"]}
    assert operation("deduct")["tags"] == ["credits"]
    assert operation("commit")["tags"] == ["reservations"]
    assert operation("set_clock")["tags"] == ["test clock"]


@pytest.mark.parametrize("name", ROW_NAMES)
def test_every_call_is_routed_by_its_method_only(client: TestClient, name: str) -> None:
    row = BY_NAME[name]
    assert call(client, name, {}).json().get("type") not in ("/problems/not-found", "/problems/method-not-allowed")
    wrong = client.request("TRACE", row.prefix + row.path)
    assert (wrong.status_code, wrong.json()["type"]) == (405, "/problems/method-not-allowed")
    assert row.method in wrong.headers["allow"].split(", ")


def test_examples_are_a_story_that_the_sidecar_confirms(client: TestClient) -> None:
    told = []
    for row, response in tell_the_story(client):
        expected = orjson.dumps(EXAMPLES[row.name].answer).decode()
        assert response.status_code == row.status, response.text
        assert without_lanes(response.text) == without_lanes(expected), row.name
        told.append(row.name)
    assert sorted(told) == sorted(ROW_NAMES)


def without_lanes(text: str) -> object:
    """JSON without what differs from run to run: lane and batch in a transaction_id, subscription_ids, secrets."""
    text = re.sub(r'("\d+-\d+)-[0-9a-f]{10}-\d+"', r'\1"', text)
    return json.loads(re.sub(r'"(s_|whsec_)[A-Za-z0-9_+/=-]{12,}"', r'"\1"', text))


def test_answers_have_the_schema_that_is_declared_and_no_further_member(client: TestClient) -> None:
    for row, response in tell_the_story(client):
        answer = response.json()
        assert faults(answer_schema(row), answer) == [], row.name
        assert set(answer) == members(answer_schema(row)), row.name
        assert row.answer.model_validate_json(response.content)


@pytest.mark.parametrize("name", ROW_NAMES)
def test_examples_have_the_schemas_that_are_declared(name: str) -> None:
    said = operation(name)
    answer = said["responses"][str(BY_NAME[name].status)]["content"]["application/json"]
    assert faults(answer["schema"], answer["example"]) == []
    if name in WITH_BODY:
        body = said["requestBody"]["content"]["application/json"]
        assert faults(body["schema"], body["example"]) == []
    for parameter in said["parameters"]:
        if "example" in parameter:
            assert faults(parameter["schema"], parameter["example"]) == [], parameter["name"]
        else:
            assert not parameter.get("required", False)


def test_a_schema_tells_right_from_wrong() -> None:
    body = operation("deduct")["requestBody"]["content"]["application/json"]["schema"]
    assert faults(body, {"user_id": "user-1", "amount": "0.000001"}) == []
    assert faults(body, {"user_id": "user-1", "amount": 12.5}) == []
    assert faults(body, {"user_id": "user{1}", "amount": 1})
    assert faults(body, {"user_id": "user-1", "amount": "1e3"})
    assert faults(body, {"user_id": "user-1", "amount": True})
    assert faults(body, {"user_id": "user-1"})
    assert faults(body, {"user_id": "user-1", "amount": 1, "amuont": 1})
    balance = answer_schema(BY_NAME["balance"])
    assert faults(balance, {**EXAMPLES["balance"].answer, "credits": "70.5"})
    page = answer_schema(BY_NAME["reservations"])
    item = {"reservation_id": "r", "user_id": "u", "state": "open", "amount": 1, "charged": 0, "created_at": NOW}
    assert faults(page, {"items": [{**item, "expires_at": NOW}], "next_cursor": None}) == []
    assert faults(page, {"items": [{**item, "expires_at": "tomorrow"}], "next_cursor": None})


def test_answer_of_a_grant_that_redis_has_not_yet_is_declared() -> None:
    rendered = Renderer(AmountScale(6)).render("grant", "0 pending user-1 welcome 100000000")
    said = operation("add")["responses"][str(rendered.status)]["content"]["application/json"]["schema"]
    answer = json.loads(rendered.body)
    assert faults(said, answer) == []
    assert set(answer) == members(said)


def test_amounts_are_exact_decimals_both_ways() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    asked = schemas["DeductRequest"]["properties"]["amount"]
    assert [one["type"] for one in asked["anyOf"]] == ["number", "string"]
    for name in ("credits", "balance", "reserved", "available", "debt", "taken", "uncovered"):
        answered = schemas["Deducted"]["properties"][name]
        assert answered["type"] == "number"
        assert "exact decimal" in answered["description"]


def test_batch_items_are_answers_of_their_operation_or_problems(client: TestClient) -> None:
    list(tell_the_story(client, until="batch"))
    response = call(client, "batch")
    schema = answer_schema(BY_NAME["batch"])
    assert faults(schema, response.json()) == []
    refused = call(client, "batch", {"operations": [{"op": "commit", "reservation_id": "nobody"}]}).json()
    assert refused["results"][0]["type"] == "/problems/reservation-not-found"
    assert faults(schema, refused) == []
    assert faults(schema, {"results": [{"user_id": "user-1"}]})


def test_idempotency_key_is_a_parameter_of_every_call_that_changes_credits() -> None:
    reference = {"$ref": "#/components/parameters/Idempotency-Key"}
    assert [name for name in ROW_NAMES if reference in operation(name)["parameters"]] == WITH_KEY
    pattern = re.compile(DOCUMENT["components"]["parameters"]["Idempotency-Key"]["schema"]["pattern"])
    assert all(pattern.match(key) for key in ("k", '"8e03-1"', "a" * 128))
    assert not any(pattern.match(key) for key in ("", '""', 'a"', "a b", "a" * 129, "ä"))


@pytest.mark.parametrize("name", WITH_KEY)
def test_replay_is_marked_as_the_document_says(client: TestClient, name: str) -> None:
    list(tell_the_story(client, until=name))
    assert "Idempotency-Replayed" in operation(name)["responses"][str(BY_NAME[name].status)]["headers"]
    body = dict(EXAMPLES[name].body or {})
    if name == "refund":
        body["transaction_id"] = call(client, "deduct").json()["transaction_id"]
    first, second = (call(client, name, body, headers={"idempotency-key": "again"}) for _ in range(2))
    assert first.status_code == BY_NAME[name].status
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert ("idempotency-replayed" in first.headers, second.headers["idempotency-replayed"]) == (False, "true")


Seen = set[tuple[str, str]]


def test_exactly_the_declared_refusals_are_served() -> None:
    seen: Seen = set()
    for provoke in (
        bodies_that_are_not_read,
        parameters_that_are_not_valid,
        keys_that_are_not_taken,
        what_the_rules_refuse,
        what_plans_refuse,
        what_changes_meanwhile,
        what_has_ended,
        what_spans_partitions,
        what_the_clock_refuses,
        what_is_not_decided,
    ):
        provoke(seen)
    assert seen == {(name, slug) for name in ROW_NAMES for slug in declared(name)}


def bodies_that_are_not_read(seen: Seen) -> None:
    with sidecar() as client:
        for name in WITH_BODY:
            for response in (
                call(client, name, content=b"{"),
                call(client, name, content=b" " * (BODY_MAX + 1)),
                call(client, name, content=b"{}", headers={"content-type": "text/plain"}),
                call(client, name, {"unknown": 1}),
            ):
                seen.add((name, refusal(name, response)))


def parameters_that_are_not_valid(seen: Seen) -> None:
    with sidecar() as client:
        for row in ROWS:
            if row.query is not None:
                seen.add((row.name, refusal(row.name, call(client, row.name, query={"unknown": "1"}))))
            if row.name == "reservations":
                query = {"user_id": "user-1", "state": "committed"}
                seen.add((row.name, refusal(row.name, call(client, row.name, query=query))))
            if "{user_id}" in row.path:
                seen.add((row.name, refusal(row.name, call(client, row.name, path={"user_id": "user 1"}))))


def keys_that_are_not_taken(seen: Seen) -> None:
    for name in WITH_KEY:
        with sidecar(store_url="memory://") as client:
            seen.add((name, refusal(name, call(client, name, headers={"idempotency-key": "a b"}))))
            list(tell_the_story(client, until=name))
            body = dict(EXAMPLES[name].body or {})
            if name == "refund":
                body["transaction_id"] = call(client, "deduct").json()["transaction_id"]
            if name == "batch":
                continue
            key = {"idempotency-key": "k"}
            assert call(client, name, body, headers=key).status_code == BY_NAME[name].status
            other = {"suspended": True} if name == "configure" else {"description": "other"}
            if name == "create_plan":
                body.pop("plan_id")
            seen.add((name, refusal(name, call(client, name, {**body, **other}, headers=key))))


def what_the_rules_refuse(seen: Seen) -> None:
    with sidecar(grants_max=1, reservations_max=1) as client:

        def refused(name: str, body: object = None, **more: Mapping[str, str]) -> None:
            response = call(client, name, body, headers=more.get("headers"), path=more.get("path", {}))
            seen.add((name, refusal(name, response)))

        added = call(client, "add").json()
        refused("add", headers={"idempotency-key": "k"})
        refused("add", {"user_id": "user-1", "amount": 1})
        charge = call(client, "deduct").json()["transaction_id"]
        refused("deduct", {"user_id": "user-1", "amount": 1000})
        refused("reserve", {"user_id": "user-1", "amount": 1000})
        refused("reservation")
        refused("commit")
        refused("release")
        refused("extend")
        assert call(client, "reserve").status_code == 201
        refused("reserve", {"user_id": "user-1", "amount": 1})
        refused("commit", {"amount": 1000, "over": "reject"})
        refused("extend", {"add_amount": 1000})
        refused("refund", {"user_id": "user-1", "transaction_id": "0-99-0123456789-1"})
        refused("refund", {"user_id": "user-1", "transaction_id": charge, "amount": 1000})
        refused("refund", {"user_id": "user-1", "transaction_id": added["transaction_id"]})
        assert call(client, "configure", {"suspended": True}).status_code == 200
        refused("deduct")
        refused("reserve", {"user_id": "user-1", "amount": 1})
        refused("extend", {"add_amount": 1})
        refused("void", path={"grant_id": "nobody"})
        assert call(client, "void").status_code == 200
        refused("void")


def what_plans_refuse(seen: Seen) -> None:
    with sidecar(store_url="memory://") as client:

        def refused(name: str, slug: str, body: object = None, **path: str) -> None:
            assert refusal(name, call(client, name, body, path=path)) == slug
            seen.add((name, slug))

        for name in ("plan", "update_plan", "delete_plan", "subscribe", "upgrade"):
            refused(name, "plan-not-found")
        refused("unsubscribe", "subscription-not-found")
        assert call(client, "create_plan").status_code == 201
        refused("create_plan", "plan-exists", {**(EXAMPLES["create_plan"].body or {}), "name": "Another"})
        refused("upgrade", "subscription-not-found")
        assert call(client, "subscribe").status_code == 200
        basic = {**(EXAMPLES["create_plan"].body or {}), "plan_id": "basic", "active": False}
        assert call(client, "create_plan", basic).status_code == 201
        refused("upgrade", "plan-inactive", {"plan_id": "basic"})
        refused("subscribe", "plan-inactive", {"plan_id": "basic"}, user_id="user-3")
        basic = {name: value for name, value in basic.items() if name != "plan_id"} | {"active": True}
        assert call(client, "update_plan", basic, path={"plan_id": "basic"}).status_code == 200
        refused("subscribe", "subscription-exists", {"plan_id": "basic"})
        for name in ("update_webhook", "delete_webhook", "rotate_webhook", "test_webhook"):
            refused(name, "webhook-not-found")
        refused("retry_notification", "notification-not-found")
        assert call(client, "create_webhook").status_code == 201
        refused("create_webhook", "webhook-exists")


class Contended(MemoryStore):
    """A store in which another process always changes a row first."""

    async def insert(self, row: object) -> bool:
        return isinstance(row, PlanRow | WebhookRow | DeliveryRow) and await super().insert(row)

    async def swap(self, row: object) -> bool:
        return False


def what_changes_meanwhile(seen: Seen) -> None:
    server, store = FakeServer(), open_memory("memory://contended", timeout_seconds=1)
    assert isinstance(store, MemoryStore)
    contended = Contended(store._tables)
    with TestClient(create_app(fake_settings(), fake_redis(server), contended)) as client:
        assert call(client, "create_plan").status_code == 201
        assert call(client, "create_webhook").status_code == 201
        FakeRedis(server=server).hset(PartitionKeys(0).meta, "clock_ms", NOW_MS)
        assert call(client, "test_webhook").status_code == 200
        for name in (
            "subscribe",
            "update_plan",
            "delete_plan",
            "update_webhook",
            "rotate_webhook",
            "delete_webhook",
            "retry_notification",
        ):
            seen.add((name, refusal(name, call(client, name))))
    with TestClient(create_app(fake_settings(), fake_redis(FakeServer()), store)) as client:
        assert call(client, "subscribe").status_code == 200
        assert (
            call(client, "create_plan", {**(EXAMPLES["create_plan"].body or {}), "plan_id": "team"}).status_code == 201
        )
        assert call(client, "delete_webhook").status_code == 200
    with TestClient(create_app(fake_settings(), fake_redis(server), contended)) as client:
        seen.add(("upgrade", refusal("upgrade", call(client, "upgrade", {"plan_id": "team"}))))
        seen.add(("create_webhook", refusal("create_webhook", call(client, "create_webhook"))))
        seen.add(("unsubscribe", refusal("unsubscribe", call(client, "unsubscribe"))))


def what_has_ended(seen: Seen) -> None:
    with sidecar(late_commit_grace_seconds=0) as client:
        call(client, "add")
        for job, end in (("committed", "commit"), ("released", "release"), ("expired", "")):
            call(client, "reserve", {"user_id": "user-1", "amount": 5, "reservation_id": job, "ttl_seconds": 60})
            if end:
                assert call(client, end, {}, path={"reservation_id": job}).status_code == 200
        call(client, "set_clock", {"advance_seconds": 61})
        for job, name in (
            *((job, name) for job in ("committed", "released", "expired") for name in ("commit", "extend")),
            *((job, "release") for job in ("committed", "expired")),
        ):
            body = {"amount": 1} if name == "commit" else {}
            slug = refusal(name, call(client, name, body, path={"reservation_id": job}))
            assert slug == f"reservation-{job}"
            seen.add((name, slug))


def what_spans_partitions(seen: Seen) -> None:
    with sidecar(partitions=2) as client:
        body = {
            "operations": [{"op": "deduct", "user_id": user, "amount": 0} for user in ("a", "b", "c", "d")],
            "atomic": True,
        }
        seen.add(("batch", refusal("batch", call(client, "batch", body))))


def what_the_clock_refuses(seen: Seen) -> None:
    with sidecar() as client:
        seen.add(("set_clock", refusal("set_clock", call(client, "set_clock", {"now": NOW}))))
    with sidecar(test_clock=False) as client:
        for name in ("clock", "set_clock"):
            seen.add((name, refusal(name, call(client, name))))


def what_is_not_decided(seen: Seen) -> None:
    server = FakeServer()
    server.connected = False
    with sidecar(server, partitions=2, redis_timeout_ms=20) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
        for name in ROW_NAMES:
            body = {"operations": [{"op": "release", "reservation_id": "job-1"}]} if name == "batch" else None
            response = call(client, name, body)
            seen.add((name, refusal(name, response)))
            assert int(response.headers["retry-after"]) > 0
