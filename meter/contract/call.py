"""What a row of the table of calls says, and what an example of a call is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel

JsonObject = Mapping[str, object]

CREDITS = "/credits"
ME = "/me"
SYSTEM = "/system"

OF_EVERY_CALL = ("metering-unavailable",)
OF_A_BODY = ("malformed-json", "body-too-large", "unsupported-media-type", "validation-error")
OF_AN_ACTOR = ("invalid-actor",)
OF_A_KEY = ("invalid-idempotency-key", "idempotency-key-reused")
OF_SPENDING = ("insufficient-credits", "budget-reached", "account-suspended", "rate-limited")
OF_A_USAGE = ("unknown-model",)
OF_AN_API_KEY = ("invalid-key", "key-not-allowed")


@dataclass(frozen=True, slots=True)
class Example:
    """An answer, and the members of the path and the query and the body that led to it.

    The examples of all calls are one story, told to a sidecar that knows nobody and whose clock is frozen at `NOW` of
    meter/contract/table/story.py. tests/openapi/test_document.py tells it and finds these answers, apart from what is
    drawn by lot.
    """

    answer: JsonObject
    body: JsonObject | None = None
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the HTTP API: all that routes, the Python clients and the OpenAPI document are made from.

    `path` is below `prefix`; `query` and `body` are what it takes, `answer` what it gives with `status`, `later` what
    it gives with 202 when its effect comes later. `refuses` are the slugs of the problems (meter/contract/problems.py)
    that are its own, beside those of every call, of a body and of a key. `keyed`: it takes an Idempotency-Key.
    `exports`: its items are to be had as CSV or NDJSON too.
    `operation` is the one of meter/engine/operations.py that it asks for, where that has another name.
    """

    name: str
    method: str
    path: str
    summary: str
    tag: str
    answer: type[BaseModel]
    example: Example
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    prefix: str = CREDITS
    status: int = 200
    later: type[BaseModel] | None = None
    refuses: tuple[str, ...] = ()
    keyed: bool = False
    operation: str = ""
    exports: bool = False
    is_always_answered: bool = False
    """Whether it tells what it knows where nothing else can be decided."""

    @property
    def names_actor(self) -> bool:
        """Whether it takes X-Actor: calls with a key do, and those that refuse one."""
        return self.keyed or "invalid-actor" in self.refuses

    @property
    def problems(self) -> tuple[str, ...]:
        """The slugs of everything that it can refuse. A test provokes exactly these."""
        of_every = ("validation-error",) if self.is_always_answered else ("validation-error", *OF_EVERY_CALL)
        slugs = [*self.refuses, *of_every]
        if self.keyed:
            slugs += OF_AN_ACTOR
            slugs += OF_A_KEY[: 1 if self.name == "batch" else 2]  # in a batch, each operation has a key of its own
        if self.body is not None:
            slugs += OF_A_BODY
        return tuple(dict.fromkeys(slugs))
