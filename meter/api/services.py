"""What every handler of the API works with, and what they read alike."""

from __future__ import annotations

from dataclasses import dataclass

from meter.amount import AmountScale
from meter.api.rendering import Renderer
from meter.config import Settings
from meter.contract.requests import Described
from meter.engine import operations
from meter.engine.engine import Engine
from meter.engine.operations import Asked
from meter.engine.redis import RedisGateway
from meter.errors import MeterError
from meter.http.exchange import Request
from meter.http.reading import failure
from meter.http.rendered import Answered, Rendered, problem, validation_problem
from meter.keys import OBJECT_ID, USER_ID
from meter.store.base import Store


@dataclass(frozen=True, slots=True)
class Services:
    """What handlers work with."""

    engine: Engine
    redis: RedisGateway
    store: Store | None
    settings: Settings
    scale: AmountScale
    renderer: Renderer


def asked_of(body: Described, key: str) -> Asked:
    """The key and the ledger members of a request."""
    if not key and body.description is None and body.metadata is None:
        return operations.UNKEYED
    return Asked(key, operations.members(body.description, body.metadata))


def path_user(request: Request) -> str:
    """The user_id of the path. Raises `Answered`."""
    user_id = request.path["user_id"]
    if not USER_ID.fullmatch(user_id):
        raise Answered(validation_problem([("/user_id", "must be 1 to 128 of A-Z a-z 0-9 . _ : @ / -")]))
    return user_id


def path_id(request: Request, name: str) -> str:
    """An id of the path; one that cannot exist is not found. Raises `Answered`."""
    value = request.path[name]
    if not OBJECT_ID.fullmatch(value):
        slug = "grant-not-found" if name == "grant_id" else "reservation-not-found"
        raise Answered(problem(slug, "No such id: ids are 1 to 128 of A-Z a-z 0-9 . _ : -"))
    return value


def refused_without_asking(line: str | MeterError) -> Rendered | None:
    return failure(line) if isinstance(line, MeterError) else None
