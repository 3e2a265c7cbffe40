"""The examples of all calls as one story, told to a running sidecar, and what the document says of each call."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import orjson
from fakeredis import FakeServer
from httpx2 import Response
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from starlette.testclient import TestClient

from meter.contract.call import ME, Call
from meter.contract.calls import BY_NAME, CALLS
from meter.contract.problems import PROBLEMS
from meter.openapi.document import document
from meter.testing import app_in_step, fake_app

BODY_MAX = 1024
PAYMENTS = {"payments": "webhook:https://example.com/pay", "payments_secret": "whsec_MDEyMzQ1Njc4OWFi"}
NOW_MS = "1767268800000"  # NOW
Json = dict[str, Any]

DOCUMENT: Json = json.loads(orjson.dumps(document()))
STORY = (
    *(
        "clock",
        "system_status",
        "doctor",
        "add",
        "deduct",
        "reserve",
        "reservations",
        "reservation",
        "extend",
        "commit",
        "batch",
        "release",
    ),
    *(
        "refund",
        "balance",
        "history",
        "trace",
        "find",
        "transactions",
        "transaction",
        "refusals",
        "refusals_of",
        "ending",
        "expiring",
        "grants",
        "explain",
        "runway",
        "configure",
        "user",
        "users",
        "usage",
        "void",
    ),
    *("create_plan", "events", "plans", "plan", "update_plan", "subscribe", "subscriptions", "upgrade"),
    *("put_rate_card", "activate_rate_card", "rate_cards", "rate_card", "rate_card_versions", "quote"),
    *(
        "create_key",
        "my_balance",
        "my_history",
        "my_usage",
        "my_keys",
        "keys",
        "change_key",
        "rotate_key",
        "revoke_key",
    ),
    *("create_code", "redeem", "codes", "stop_code"),
    *("allocate", "expire", "apply_pending", "remind", "deliver", "roll_up", "warn", "buy", "rotate"),
    *("unsubscribe", "delete_plan", "create_webhook", "webhooks", "update_webhook", "rotate_webhook", "test_webhook"),
    *("notifications", "retry_notification", "delete_webhook", "reset_budget", "anonymise", "adjust"),
    *("set_top_up", "top_up", "switch_top_up", "top_ups", "remove_top_up", "set_clock"),
)
"""The order in which the examples of all calls are one story."""
EXAMPLES = {name: BY_NAME[name].example for name in STORY}
CALL_NAMES = [row.name for row in CALLS]
WITH_BODY = [row.name for row in CALLS if row.body]
WITH_KEY = [row.name for row in CALLS if row.keyed]


OTHER_BODIES: Mapping[str, Mapping[str, object]] = {
    "set_clock": {"advance_seconds": 60},
    "configure": {"suspended": True},
    "subscribe": {"auto_renew": False},
    "upgrade": {"when": "now"},
    "create_key": {"name": "other"},
    "adjust": {"reason": "other"},
    "change_key": {"name": "other"},
    "rotate_key": {"overlap_seconds": 5},
    "revoke_key": {"reason": "other"},
    "stop_code": {"reason": "other"},
    "set_top_up": {"amount": 50},
    "switch_top_up": {"enabled": True},
    "redeem": {"reference": "other"},
    "put_rate_card": {"minimum": 1},
    "activate_rate_card": {"effective_at": "2099-01-01T00:00:00Z"},
}
"""Other members for a key that was used; a description for most."""


@contextmanager
def sidecar(server: FakeServer | None = None, **overrides: object) -> Iterator[TestClient]:
    """A running sidecar; with a store in memory it does what a worker would do."""
    overrides = {**PAYMENTS, **overrides}
    make = app_in_step if overrides.get("store_url") == "memory://" else fake_app
    with TestClient(make(server, body_max_bytes=BODY_MAX, **overrides)) as client:
        yield client


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


def tell_the_story(client: TestClient, until: str | None = None) -> Iterator[tuple[Call, Response]]:
    """Sends the examples in order, each with the ids of the charge and of the notification that it means."""
    charge, told = "", list[tuple[Call, Response]]()
    for name, example in EXAMPLES.items():
        if name == until:
            return
        body = dict(example.body or {})
        if "transaction_id" in body:
            body["transaction_id"] = charge
        response = call(client, name, body, path=path_of(name, told), headers=key_of(name, told))
        if name == "deduct":
            charge = response.json()["transaction_id"]
        told.append((BY_NAME[name], response))
        yield told[-1]


def key_of(name: str, told: Iterable[tuple[Call, Response]]) -> dict[str, str]:
    """The API key of a call about oneself: that which the story made."""
    if BY_NAME[name].prefix != ME:
        return {}
    return {"authorization": f"Bearer {next(said.json()['key'] for row, said in told if row.name == 'create_key')}"}


def path_of(name: str, told: Iterable[tuple[Call, Response]]) -> dict[str, str]:
    """Path members of a call that its example cannot have, because they are drawn by lot while the story is told."""
    if name in ("change_key", "rotate_key", "revoke_key"):
        return {"key_id": next(said.json()["key_id"] for row, said in told if row.name == "create_key")}
    if name == "transaction":
        return {
            name + "_id": next((said.json()[name + "_id"] for row, said in told if row.name == "deduct"), "0-0-0-0")
        }
    if name == "stop_code":
        return {"code_id": next(said.json()["code_id"] for row, said in told if row.name == "create_code")}
    if name != "retry_notification":
        return {}
    return {"notification_id": next(said.json()["notification_id"] for row, said in told if row.name == "test_webhook")}


def operation(name: str) -> Json:
    """What the document says of a call."""
    row = BY_NAME[name]
    found: Json = DOCUMENT["paths"][row.prefix + row.path][row.method.lower()]
    return found


def faults(schema: Json, value: object) -> list[str]:
    """What is wrong with a value, by a schema of the document."""
    whole = {**schema, "components": DOCUMENT["components"]}
    return [error.message for error in OAS31Validator(whole, format_checker=oas31_format_checker).iter_errors(value)]


def answer_schema(row: Call) -> Json:
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


def told_again(content: bytes) -> bytes:
    """What a repeated call finds: the text of an API key or a promo code is told once."""
    return re.sub(rb'"(key|code)":"(mk_[^"]*|SPRING)"', rb'"\1":null', content)
