"""The OpenAPI document tells the truth: every call and answer in it is what a running sidecar does."""

from __future__ import annotations

import json
import re

import orjson
import pytest
from openapi_spec_validator import validate
from starlette.testclient import TestClient

from meter.amount import AmountScale
from meter.api.rendering import Renderer
from meter.contract.calls import BY_NAME, CALLS
from meter.contract.table.story import NOW
from tests.openapi.story import (
    CALL_NAMES,
    DOCUMENT,
    EXAMPLES,
    WITH_BODY,
    WITH_KEY,
    answer_schema,
    call,
    faults,
    members,
    operation,
    path_of,
    tell_the_story,
    told_again,
)


def test_document_is_valid_openapi() -> None:
    validate(DOCUMENT)
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert DOCUMENT["info"]["license"]["identifier"] == "MIT"
    assert DOCUMENT["info"]["version"]


def _schemas(found: object) -> list[dict[str, object]]:
    if isinstance(found, list):
        return [one for part in found for one in _schemas(part)]
    if not isinstance(found, dict):
        return []
    return [found, *(one for part in found.values() for one in _schemas(part))]


def test_every_bound_is_one_that_a_reader_of_schemas_knows() -> None:
    """`ge` and its like are pydantic's own words: they bound nothing for anybody else."""
    told = [one for one in _schemas(DOCUMENT["components"]["schemas"]) if one.get("type") in ("integer", "number")]
    assert told
    assert [one for one in told if one.keys() & {"ge", "gt", "le", "lt", "multiple_of"}] == []


def test_every_call_of_the_surface_and_no_other_is_described() -> None:
    described = {
        (call["operationId"], method.upper(), path)
        for path, methods in DOCUMENT["paths"].items()
        for method, call in methods.items()
        if not {"operating", "gateways"} & set(call["tags"])
    }
    assert described == {(row.name, row.method, row.prefix + row.path) for row in CALLS}


def test_every_tag_is_explained_and_used() -> None:
    used = {tag for methods in DOCUMENT["paths"].values() for call in methods.values() for tag in call["tags"]}
    assert used == {tag["name"] for tag in DOCUMENT["tags"]}
    assert operation("deduct")["tags"] == ["credits"]
    assert operation("commit")["tags"] == ["reservations"]
    assert operation("set_clock")["tags"] == ["test clock"]


@pytest.mark.parametrize("name", CALL_NAMES)
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
    assert sorted(told) == sorted(CALL_NAMES)


def without_lanes(text: str) -> object:
    """JSON without what differs from run to run: lane and batch in a transaction_id, what is drawn by lot."""
    text = re.sub(r'"(change-)?[0-9a-f]{12,24}(-[0-9a-f]+)?"', '"drawn"', text)
    text = re.sub(r'("\d+-\d+)-[0-9a-f]{10}-\d+"', r'\1"', text)
    text = re.sub(r'"(version|as_of|started_at|seen_at|id)":"[^"]*"', r'"\1":""', text)  # of this moment and machine
    text = re.sub(r'"(key_|mk_test_|code_)[0-9A-Za-z]{20,}(_1)?"', r'"\1\2"', text)
    return json.loads(re.sub(r'"(s_|whsec_|msg_)[A-Za-z0-9_+/=-]{12,}"', r'"\1"', text))


AT_TIMES = {
    *("price", "limited_by", "rate_limit", "spendable", "payers", "effect"),
    *("restricted", "usable", "restricted_by", "only", "tags", "restricted_after"),
}
"""Members of answers that are there where there is something to tell."""


def test_answers_have_the_schema_that_is_declared_and_no_further_member(client: TestClient) -> None:
    for row, response in tell_the_story(client):
        answer = response.json()
        assert faults(answer_schema(row), answer) == [], row.name
        assert members(answer_schema(row)) - set(answer) <= AT_TIMES, row.name
        assert set(answer) <= members(answer_schema(row)), row.name
        assert row.answer.model_validate_json(response.content)


@pytest.mark.parametrize("name", CALL_NAMES)
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
    assert [one["type"] for one in asked["anyOf"][0]["anyOf"]] == ["number", "string"]
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
    assert [name for name in CALL_NAMES if reference in operation(name)["parameters"]] == WITH_KEY
    pattern = re.compile(DOCUMENT["components"]["parameters"]["Idempotency-Key"]["schema"]["pattern"])
    assert all(pattern.match(key) for key in ("k", '"8e03-1"', "a" * 128))
    assert not any(pattern.match(key) for key in ("", '""', 'a"', "a b", "a" * 129, "ä"))


@pytest.mark.parametrize("name", WITH_KEY)
def test_replay_is_marked_as_the_document_says(client: TestClient, name: str) -> None:
    path = path_of(name, list(tell_the_story(client, until=name)))
    assert "Idempotency-Replayed" in operation(name)["responses"][str(BY_NAME[name].status)]["headers"]
    body = dict(EXAMPLES[name].body or {})
    if name == "refund":
        body["transaction_id"] = call(client, "deduct").json()["transaction_id"]
    first, second = (call(client, name, body, headers={"idempotency-key": "again"}, path=path) for _ in range(2))
    assert first.status_code == BY_NAME[name].status
    assert (second.status_code, second.content) == (first.status_code, told_again(first.content))
    assert ("idempotency-replayed" in first.headers, second.headers["idempotency-replayed"]) == (False, "true")
