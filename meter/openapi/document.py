"""The OpenAPI 3.1 document, made from the table of calls, its models and the error catalogue.

Says nothing of its own about a call of the table, and every one is in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from importlib.metadata import metadata
from re import findall
from typing import Any, cast

import orjson
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from meter.amount import AmountScale
from meter.contract.answers import Refusal
from meter.contract.call import CREDITS, Call, Example
from meter.contract.calls import BY_NAME, CALLS
from meter.contract.problems import CONTENT_TYPE, PROBLEMS
from meter.keys import ACTOR, OBJECT_ID, OPERATION_KEY, REQUEST_ID, USER_ID
from meter.openapi.bounds import Bounds, bounded
from meter.openapi.gateway import TAG, TAG_TEXT, gateway_paths

PACKAGE = "meter-sidecar"
JSON_TYPE = "application/json"
BATCH_OPERATIONS = ("deduct", "reserve", "commit", "release")

JsonObject = dict[str, object]

_TAGS = {
    "credits": "Credits in and out, in one step.",
    "reservations": "Hold credits before work starts, settle for what was used.",
    "grants": "Lots of credits, each with its own priority and end.",
    "accounts": "What an account may do.",
    "top-ups": "What is bought when few credits are left, and each request for it.",
    "keys": "Who calls: API keys of users and operators, whose texts are told once.",
    "codes": "Promo codes: made once, told once, redeemed as often as they may be.",
    "me": "What users may ask about themselves, by their own API keys.",
    "rates": "What usage costs: versions of rate cards, each priced from a moment on, and what a usage would come to.",
    "notifications": "Who is told of alerts, and what was sent.",
    "reports": "Who there is, who spent what, and what was refused or changed; for owners and support.",
    "search": "Whose an id is, and the transactions and refusals of everybody; for support.",
    "plans": "What one period grants, and who has it.",
    "jobs": "Do by hand, a page at a time, what the worker does by itself.",
    "system": "Whether everything works that has to, and what has to be done where it does not; for operators.",
    TAG: TAG_TEXT,
    "test clock": "Move the time of a test deployment (METER_TEST_CLOCK=1).",
    "operating": "For whoever runs the sidecar.",
}

# Calls that are not in the table: method, path, operationId, summary, media type of the answer, refusals.
_OTHERS: tuple[tuple[str, str, str, str, str, tuple[str, ...]], ...] = (
    ("get", "/livez", "livez", "Tell that the process lives", JSON_TYPE, ()),
    ("get", "/readyz", "readyz", "Tell whether every partition decides", JSON_TYPE, ("metering-unavailable",)),
    ("get", "/metrics", "metrics", "Prometheus metrics of the process that answers", "text/plain", ()),
    (
        "post",
        "/payments/events",
        "payment_event",
        "Hear from the provider of payments, by its signature",
        JSON_TYPE,
        ("payment-event-refused", "metering-unavailable"),
    ),
    ("get", "/problems/{slug}", "problem", "Tell what a problem type means", JSON_TYPE, ("not-found",)),
    ("get", "/openapi.json", "openapi", "This document", JSON_TYPE, ()),
    ("get", "/docs", "docs", "A page to try the calls on", "text/html", ()),
)

_ANY_BODY: JsonObject = {"required": True, "content": {JSON_TYPE: {"schema": {"type": "object"}}}}

_PATH_MEMBERS = {
    "user_id": (USER_ID.pattern, "Percent-encode a `/` in it."),
    "slug": (OBJECT_ID.pattern, "The last part of a problem's `type`."),
}
_KEY_PARAMETER: JsonObject = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Names this operation. The same key and body again get the first answer again, marked "
    "`Idempotency-Replayed: true`; the key with another body is refused. Bare, or as an RFC 8941 string.",
    "schema": {"type": "string", "pattern": f'^(?:"{OPERATION_KEY.pattern}"|{OPERATION_KEY.pattern})$'},
}
_REPLAYED_HEADER: JsonObject = {
    "description": "There and `true` when this is the stored answer of an earlier call.",
    "schema": {"type": "string", "const": "true"},
}
_RETRY_HEADER: JsonObject = {
    "description": "Seconds until another try makes sense.",
    "schema": {"type": "integer", "minimum": 0},
}
_POLICY_HEADER: JsonObject = {
    "description": 'The tightest rate limit that counts the call: `"id";q=limit;w=seconds`. Not of a repeated call.',
    "schema": {"type": "string"},
}
_LIMIT_HEADER: JsonObject = {
    "description": 'Where it stands: `"id";r=left;t=seconds` until all of it is there again.',
    "schema": {"type": "string"},
}
_RATE_NAMES = ("RateLimit-Policy", "RateLimit")
_CREDITS_SCHEMA: JsonObject = {
    "type": "number",
    "description": "Credits, an exact decimal: parse it as a decimal where your language would round a number.",
}
_REQUEST_ID: JsonObject = {"type": "string", "pattern": f"^{REQUEST_ID.pattern}$"}
_REQUEST_PARAMETER: JsonObject = {
    "name": "X-Request-Id",
    "in": "header",
    "description": "The caller's own id of the request: the answer and the log have it, and what it books has it as "
    "its `reference` where the body names none. One that does not match is replaced by a new one.",
    "schema": {"type": "string"},
}
_ACTOR_PARAMETER: JsonObject = {
    "name": "X-Actor",
    "in": "header",
    "description": "Who asks for the change, a person or a system: the ledger has it, and `GET /credits/events`.",
    "schema": {"type": "string", "pattern": f"^{ACTOR.pattern}$"},
}
_REQUEST_HEADER: JsonObject = {
    "description": "The id of the request: the one that it brought, else a new one.",
    "schema": _REQUEST_ID,
}
_OF_A_KEY = "An API key (docs/keys.md): wanted for every call with METER_AUTH=keys, and for those below /me always."
_SECURITY: dict[str, JsonObject] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": _OF_A_KEY},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": _OF_A_KEY},
    "X-Meter-Key": {"type": "apiKey", "in": "header", "name": "X-Meter-Key", "description": "The same, of a gateway."},
}
"""How a caller says who it is."""
_SCHEMA_REF = "#/components/schemas/{model}"


class _Schemas(GenerateJsonSchema):
    """pydantic's schemas, without a title per member, with what the amount of an answer is, and with maps that have no
    other names than those of their pattern.
    """

    def field_title_should_be_set(self, schema: object) -> bool:
        return False

    def ser_schema(self, schema: Any) -> dict[str, Any] | None:
        if schema["type"] == "function-plain":  # the one serializer in `meter.model` is that of `Credits`
            return dict(_CREDITS_SCHEMA)
        return super().ser_schema(schema)

    def dict_schema(self, schema: Any) -> dict[str, Any]:
        found = super().dict_schema(schema)
        for pattern, value in found.pop("patternProperties", {}).items():  # which would let every other name pass
            found |= {"propertyNames": {"pattern": pattern}, "additionalProperties": value}
        return found


def document(bounds: Bounds = Bounds(), *, is_mounted: bool = False) -> JsonObject:  # noqa: B008 - a tuple
    """The document of a deployment with those bounds, as JSON values; `is_mounted`: of the calls below `/credits`
    alone, by their paths below that.
    """
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(call.answer, "serialization") for call in CALLS]
    models += [(call.later, "serialization") for call in CALLS if call.later]
    models += [(call.body, "validation") for call in CALLS if call.body]
    references, schemas = models_json_schema(
        list(dict.fromkeys(models)), ref_template=_SCHEMA_REF, schema_generator=_Schemas
    )
    components = {**schemas["$defs"], "Problem": _problem_schema()}
    components["BatchRequest"]["properties"]["operations"]["maxItems"] = bounds.batch_max
    components["BatchAnswer"]["properties"]["results"]["items"] = _batch_result()
    paths: dict[str, JsonObject] = {}
    for call in [call for call in CALLS if call.prefix == CREDITS or not is_mounted]:
        body = references[call.body, "validation"] if call.body else None
        operation = _operation(call, references[call.answer, "serialization"], body)
        paths.setdefault(call.path if is_mounted else call.prefix + call.path, {})[call.method.lower()] = operation
    others = () if is_mounted else _OTHERS
    paths |= {} if is_mounted else gateway_paths(_problems)
    for method, path, name, summary, media_type, slugs in others:
        body = {"requestBody": _ANY_BODY} if method == "post" else {}
        paths[path] = {method: {**_other(path, name, summary, media_type, slugs), **body}}
    _identify(paths)
    about = metadata(PACKAGE)
    license_id = about["License-Expression"]
    found: JsonObject = {
        "openapi": "3.1.1",
        "info": {
            "title": "meter",
            "version": about["Version"],
            "summary": about["Summary"],
            "license": {"name": license_id, "identifier": license_id},
        },
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "security": [{}, *({name: []} for name in _SECURITY)],
        "components": {
            "securitySchemes": _SECURITY,
            "schemas": components,
            "parameters": {
                "Idempotency-Key": _KEY_PARAMETER,
                "X-Actor": _ACTOR_PARAMETER,
                "X-Request-Id": _REQUEST_PARAMETER,
            },
            "headers": {
                "Idempotency-Replayed": _REPLAYED_HEADER,
                "Retry-After": _RETRY_HEADER,
                "RateLimit-Policy": _POLICY_HEADER,
                "RateLimit": _LIMIT_HEADER,
                "X-Request-Id": _REQUEST_HEADER,
            },
            "examples": {
                kind.slug: {"summary": kind.remedy, "value": orjson.loads(kind.body(f"{kind.title}."))}
                for kind in PROBLEMS.values()
            },
        },
    }
    return cast("JsonObject", bounded(found, bounds))


def _identify(paths: Mapping[str, JsonObject]) -> None:
    """Every call takes an id of its request, and every answer tells it."""
    for operation in (cast("JsonObject", one) for methods in paths.values() for one in methods.values()):
        parameters = cast("list[JsonObject]", operation["parameters"])
        if all(parameter.get("name") != "X-Request-Id" for parameter in parameters):
            parameters.append({"$ref": "#/components/parameters/X-Request-Id"})
        for response in cast("dict[str, JsonObject]", operation["responses"]).values():
            headers = cast("JsonObject", response.get("headers", {}))
            response["headers"] = {**headers, "X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}


def _problem_schema() -> JsonObject:
    schema = Refusal.model_json_schema(mode="serialization", schema_generator=_Schemas)
    text = "The id of the request, as in X-Request-Id. The problems inside a batch's answer have none of their own."
    return {
        **schema,
        "properties": {**schema["properties"], "request_id": {**_REQUEST_ID, "description": text}},
        "title": "Problem",
        "description": "A refusal (RFC 9457): nothing was changed. Compare `type`; further members depend on it. "
        "`errors` of a validation-error has a JSON `pointer` and a `detail` for each fault.",
    }


def _batch_result() -> JsonObject:
    """What the model leaves open: an item is the answer of its operation, with its status, or a problem."""
    answers = [_reference(BY_NAME[name].answer.__name__) for name in BATCH_OPERATIONS]
    return {
        "type": "object",
        "properties": {"status": {"type": "integer"}},
        "required": ["status"],
        "anyOf": [*answers, _reference("Problem")],
    }


def _reference(name: str) -> JsonObject:
    return {"$ref": _SCHEMA_REF.format(model=name)}


def _operation(call: Call, answer_schema: JsonObject, body_schema: JsonObject | None) -> JsonObject:
    example = call.example
    parameters = [*_path_parameters(call.path, example.path), *_query_parameters(call.query, example)]
    if call.keyed:
        parameters.append({"$ref": "#/components/parameters/Idempotency-Key"})
    if call.names_actor:
        parameters.append({"$ref": "#/components/parameters/X-Actor"})
    json_answer: JsonObject = {"schema": answer_schema, "example": example.answer}
    answer: JsonObject = {"description": _sentence(call.answer), "content": {JSON_TYPE: json_answer}}
    if call.exports:
        exported = {"schema": {"type": "string", "description": "Every item from the cursor on, or `limit` of them."}}
        answer["content"] = {JSON_TYPE: json_answer, "text/csv": exported, "application/x-ndjson": exported}
    names = [
        *(["Idempotency-Replayed"] if call.keyed else ()),
        *(_RATE_NAMES if "rate_limit" in call.answer.model_fields else ()),
    ]
    if names:
        answer["headers"] = _header_references(*names)
    found: JsonObject = {
        "operationId": call.name,
        "summary": call.summary,
        "tags": [call.tag],
        "parameters": parameters,
    }
    if call.body is not None:
        found["requestBody"] = {
            "required": not _takes_nothing(call.body),
            "content": {JSON_TYPE: {"schema": body_schema, "example": example.body}},
        }
    found["responses"] = {str(call.status): answer, **_accepted(call), **_problems(call.problems)}
    return found


def _takes_nothing(model: type[BaseModel]) -> bool:
    """Whether an empty object is a body, as which no body counts."""
    try:
        model.model_validate({}, context=AmountScale(0))
    except ValidationError:
        return False
    return True


def _accepted(call: Call) -> JsonObject:
    if call.later is None:
        return {}
    content = {JSON_TYPE: {"schema": _reference(call.later.__name__)}}
    return {"202": {"description": _sentence(call.later), "content": content}}


def _other(path: str, name: str, summary: str, media_type: str, slugs: Iterable[str]) -> JsonObject:
    content = {media_type: {"schema": {"type": "object" if media_type == JSON_TYPE else "string"}}}
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["operating"],
        "parameters": _path_parameters(path, {"slug": "insufficient-credits"}),
        "responses": {"200": {"description": "OK", "content": content}, **_problems(slugs)},
    }


def _path_parameters(path: str, example: Mapping[str, str]) -> list[JsonObject]:
    found = []
    for name in findall(r"\{(\w+)\}", path):
        pattern, text = _PATH_MEMBERS.get(name, (OBJECT_ID.pattern, ""))
        parameter: JsonObject = {"name": name, "in": "path", "required": True}
        if text:
            parameter["description"] = text
        parameter |= {"schema": {"type": "string", "pattern": f"^(?:{pattern})$"}, "example": example[name]}
        found.append(parameter)
    return found


def _query_parameters(query: type[BaseModel] | None, example: Example) -> list[JsonObject]:
    if query is None:
        return []
    schema = query.model_json_schema(schema_generator=_Schemas)
    found = []
    for name, member in schema["properties"].items():
        required = name in schema.get("required", ())
        parameter: JsonObject = {"name": name, "in": "query", "required": required, "schema": member}
        if name in example.query:
            parameter["example"] = example.query[name]
        found.append(parameter)
    return found


def _problems(slugs: Iterable[str]) -> dict[str, JsonObject]:
    """The refusals by status, each with its examples from the catalogue."""
    by_status: dict[int, list[str]] = {}
    for slug in dict.fromkeys(slugs):
        by_status.setdefault(PROBLEMS[slug].status, []).append(slug)
    return {str(status): _problem(status, of_status) for status, of_status in sorted(by_status.items())}


def _problem(status: int, slugs: list[str]) -> JsonObject:
    content: JsonObject = {
        "schema": _reference("Problem"),
        "examples": {slug: {"$ref": f"#/components/examples/{slug}"} for slug in slugs},
    }
    found: JsonObject = {
        "description": ". ".join(PROBLEMS[slug].title for slug in slugs) + ".",
        "content": {CONTENT_TYPE.decode(): content},
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        found["headers"] = _header_references("Retry-After")
    if status == HTTPStatus.TOO_MANY_REQUESTS or "budget-reached" in slugs:
        found["headers"] = _header_references("Retry-After", *_RATE_NAMES)
    return found


def _header_references(*names: str) -> JsonObject:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _sentence(model: type[BaseModel]) -> str:
    return (model.__doc__ or "OK").strip()
