"""The cases: which server, which requests, how many operations are in one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from importlib.util import find_spec

from meter.bench.peers import original_installed
from meter.bench.traffic import Template

BATCH = 100
ORIGINAL_USERS = 50
"""Its in-memory store looks through every transaction of every user at each deduct."""

_JSON_DEDUCT = '{"user_id":"%U","amount":1}'


@dataclass(frozen=True, slots=True)
class Case:
    """One case. `server` is sidecar, a peer, or redis for redis-benchmark itself."""

    name: str
    title: str
    server: str
    templates: tuple[Template, ...]
    operations: int = 1
    """In one request."""
    users_max: int | None = None


def _batch() -> str:
    one = '{"op":"deduct","user_id":"%U","amount":1}'
    return '{"operations":[' + ",".join([one] * BATCH) + "]}"


def _holds() -> str:
    numbers = range(BATCH)
    holds = [f'{{"op":"reserve","user_id":"%U","amount":5,"reservation_id":"%R-{number}"}}' for number in numbers]
    return '{"operations":[' + ",".join(holds) + "]}"


def _log() -> str:
    return "\n".join(f'{{"reservation_id":"%R-{number}","status":"200","usage":"3"}}' for number in range(BATCH))


CASES = (
    Case("echo", "bare Starlette JSON echo", "echo", (Template("POST", "/echo", _JSON_DEDUCT),)),
    Case("deduct", "POST /credits/deduct", "sidecar", (Template("POST", "/credits/deduct", _JSON_DEDUCT),)),
    Case(
        "pairs",
        "reserve + commit, two requests",
        "sidecar",
        (
            Template("POST", "/credits/reservations", '{"user_id":"%U","amount":5,"reservation_id":"%R"}'),
            Template("POST", "/credits/reservations/%R/commit", '{"amount":3}'),
        ),
    ),
    Case(
        "batch",
        f"POST /credits/batch of {BATCH} deducts",
        "sidecar",
        (Template("POST", "/credits/batch", _batch()),),
        operations=BATCH,
    ),
    Case(
        "authorize",
        "GET /gateway/authorize",
        "sidecar",
        (Template("GET", "/gateway/authorize?mode=deduct&amount=1", headers=(("X-User-Id", "%U"),)),),
    ),
    Case(
        "logs",
        f"{BATCH} holds, then POST /gateway/logs of {BATCH}",
        "sidecar",
        (Template("POST", "/credits/batch", _holds()), Template("POST", "/gateway/logs", _log())),
        operations=BATCH,
    ),
    Case("explain", "GET /credits/explain", "sidecar", (Template("GET", "/credits/explain/%U?amount=5"),)),
    Case(
        "evalsha",
        "Starlette + pydantic, await EVALSHA each",
        "evalsha",
        (Template("POST", "/credits/deduct", _JSON_DEDUCT),),
    ),
    Case(
        "original",
        "credit-management 0.4.0, patched to answer",
        "original",
        (Template("POST", "/credits/deduct", _JSON_DEDUCT),),
        users_max=ORIGINAL_USERS,
    ),
    Case("redis", f"redis-benchmark, our script with {BATCH} deducts", "redis", (), operations=BATCH),
)


def why_not(case: Case) -> str | None:
    """Why a case cannot run here; None when it can."""
    if case.name == "original" and not original_installed():
        return "pip install credit-management==0.4.0 fastapi"
    if case.name == "redis" and shutil.which("redis-benchmark") is None:
        return "redis-benchmark is not on PATH"
    if case.name == "authorize" and find_spec("meter.gateway.authorize") is None:
        return "this version has no gateway endpoints"
    return None
