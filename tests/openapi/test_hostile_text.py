"""X18: what a store cannot keep is refused before any store is asked, in every text of every call of the table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from meter.contract.call import Call
from meter.contract.calls import BY_NAME, CALLS
from tests.openapi.story import DOCUMENT, Json, call, key_of, operation, tell_the_story

NUL = "a\0b"


def resolved(schema: Json) -> Json:
    """A schema without its reference."""
    if "$ref" in schema:
        found: Json = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return found
    return schema


def kinds(schema: Json) -> set[str]:
    """The JSON types that a schema allows."""
    options: list[Json] = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return {resolved(option).get("type", "any") for option in options}


def bodies_with_nul(body: Json, schema: Json) -> Iterator[tuple[str, Json]]:
    """Each pointer to a text of a body, and the body with a NUL there."""
    for name, member in resolved(schema)["properties"].items():
        if "string" in kinds(member) and name != "api_key":  # what is no key is nobody's, whatever it is: 401
            yield f"/{name}", {**body, name: NUL}
        if name == "metadata":
            values: tuple[Json, ...] = ({NUL: 1}, {"k": NUL}, {"k": [{"deep": [NUL]}]}, {"k": {NUL: {}}})
            yield from ((f"/{name}", {**body, name: value}) for value in values)


def query_values(found: Call) -> Iterator[str]:
    for parameter in operation(found.name)["parameters"]:
        if parameter.get("in") == "query":
            yield parameter["name"]


@pytest.mark.parametrize("name", [row.name for row in CALLS if row.body is not None])
def test_x18_nul_in_a_body_is_refused_with_its_place(client: TestClient, name: str) -> None:
    list(tell_the_story(client, until=name))
    schema = operation(name)["requestBody"]["content"]["application/json"]["schema"]
    example = dict(BY_NAME[name].example.body or {})
    for pointer, body in bodies_with_nul(example, schema):
        answer = call(client, name, body)
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/validation-error"), (
            pointer,
            answer.text,
        )
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_x18_the_texts_of_a_batch_are_judged_alike(client: TestClient) -> None:
    for name in ("deduct", "reserve", "commit", "release"):
        schema = DOCUMENT["components"]["schemas"][f"Batch{name.capitalize()}"]
        item: dict[str, Any] = {"op": name, "user_id": "u", "amount": 0, "reservation_id": "r"}
        item = {member: item[member] for member in item if member in schema["properties"]}
        for pointer, body in bodies_with_nul(item, schema):
            answer = call(client, "batch", {"operations": [body]})
            assert answer.status_code == 422, answer.text
            assert answer.json()["errors"][0]["pointer"] in (f"/operations/0{pointer}", "/operations/0")


@pytest.mark.parametrize("name", [row.name for row in CALLS if row.query is not None])
def test_x18_nul_in_a_query_is_refused_with_its_place(client: TestClient, name: str) -> None:
    headers = key_of(name, list(tell_the_story(client, until=name)))
    for member in query_values(BY_NAME[name]):
        answer = call(client, name, query={**BY_NAME[name].example.query, member: NUL}, headers=headers)
        assert (member, answer.status_code, answer.json().get("type")) == (member, 422, "/problems/validation-error")
        assert [error["pointer"] for error in answer.json()["errors"]] == [f"/{member}"]


@pytest.mark.parametrize("name", [row.name for row in CALLS if "{" in row.path])
def test_x18_nul_in_a_path_names_nothing(client: TestClient, name: str) -> None:
    list(tell_the_story(client, until=name))
    for member in BY_NAME[name].example.path:
        answer = call(client, name, path={member: NUL})
        assert answer.status_code in (404, 422), answer.text
        assert quote(NUL) not in answer.text


def test_x18_what_looks_like_nul_and_is_none_is_taken(client: TestClient) -> None:
    body = {"user_id": "u", "amount": 1, "description": "\\u0000", "metadata": {"\\u0000": "\\\\u0000"}}
    assert call(client, "add", body).status_code == 200
