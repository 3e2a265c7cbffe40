"""The cases: which server, which requests, how many operations are in one, and whose CPU time they cost."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from meter.bench.peers import original_installed
from meter.bench.traffic import Template

BATCH = 100
ORIGINAL_USERS = 50
"""Its in-memory store looks through every transaction of every user at each deduct."""

SERVER, REDIS, WORKER = "server", "redis", "worker"
"""The parties: who answers, and who works for that."""
METERED = (SERVER, REDIS, WORKER)

_JSON_DEDUCT = '{"user_id":"%U","amount":1}'
_RATELIMIT = '{"domain":"bench","descriptors":[{"entries":[{"key":"user","value":"%U"}]}]}'
_CHAT = '{"model":"small","messages":[{"role":"user","content":"hello"}]}'


@dataclass(frozen=True, slots=True)
class Case:
    """One case. `server` is a name of `meter.bench.parties`."""

    name: str
    title: str
    server: str
    templates: tuple[Template, ...]
    operations: int = 1
    """In one request."""
    parties: tuple[str, ...] = (SERVER,)
    connections: int | None = None
    """None: as many as the run has."""
    users_max: int | None = None


def _batch() -> str:
    one = '{"op":"deduct","user_id":"%U","amount":1}'
    return '{"operations":[' + ",".join([one] * BATCH) + "]}"


_DEDUCT = (Template("POST", "/credits/deduct", _JSON_DEDUCT),)
_PAIR = (
    Template("POST", "/credits/reservations", '{"user_id":"%U","amount":5,"reservation_id":"%R"}'),
    Template("POST", "/credits/reservations/%R/commit", '{"amount":3}'),
)
_AUTHORIZE = (Template("GET", "/gateway/authorize?mode=deduct&amount=1", headers=(("X-User-Id", "%U"),)),)
_PROXIED = (Template("POST", "/v1/chat/completions", _CHAT, (("X-User-Id", "%U"),)),)

CASES = (
    Case("floor", "C epoll, constant answer", "floor", (Template("POST", "/", _JSON_DEDUCT),)),
    Case("echo", "bare Starlette JSON echo", "echo", (Template("POST", "/echo", _JSON_DEDUCT),)),
    Case("deduct", "POST /credits/deduct", "sidecar", _DEDUCT, parties=METERED),
    Case("pairs", "reserve + commit, two requests", "sidecar", _PAIR, parties=METERED),
    Case(
        "batch",
        f"POST /credits/batch of {BATCH}, each",
        "sidecar",
        (Template("POST", "/credits/batch", _batch()),),
        operations=BATCH,
        parties=METERED,
    ),
    Case("authorize", "GET /gateway/authorize", "sidecar", _AUTHORIZE, parties=METERED),
    Case("lone", "deduct, one connection", "sidecar", _DEDUCT, parties=METERED, connections=1),
    Case("evalsha", "Starlette, await EVALSHA", "evalsha", _DEDUCT, parties=(SERVER, REDIS)),
    Case("evalsha1", "the same, one connection", "evalsha", _DEDUCT, parties=(SERVER, REDIS), connections=1),
    Case(
        "ratelimit",
        "envoyproxy/ratelimit, JSON",
        "ratelimit",
        (Template("POST", "/json", _RATELIMIT),),
        parties=(SERVER, REDIS),
    ),
    Case(
        "original",
        "credit-management 0.4.0, patched",
        "original",
        _DEDUCT,
        users_max=ORIGINAL_USERS,
    ),
    Case("upstream", "an upstream, JSON", "upstream", _PROXIED),
    Case("proxy", "meter proxy in front of it", "proxy", _PROXIED, parties=METERED),
)


def wanted_cases(names: Iterable[str]) -> list[Case]:
    """Those cases, in their order; all for no name."""
    chosen = set(names)
    return [case for case in CASES if not chosen or case.name in chosen]


def why_not(case: Case, ratelimit: str | None) -> str | None:
    """Why a case cannot run here; None when it can."""
    if case.server == "floor" and shutil.which("cc") is None:
        return "there is no C compiler (cc) on PATH"
    if case.server == "original" and not original_installed():
        return "pip install credit-management==0.4.0 fastapi"
    if case.server == "ratelimit" and ratelimit is None:
        return "name its binary, or go to build it: --ratelimit=PATH, --ratelimit=go"
    if case.name == "authorize" and find_spec("meter.gateway.authorize") is None:
        return "this version has no gateway endpoints"
    return None
