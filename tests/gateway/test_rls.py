"""Envoy's rate limit service: meter/gateway/rls.py, called by a real gRPC client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from meter.app import services_of
from meter.engine import operations, upkeep
from meter.engine.engine import Engine
from meter.engine.prices import Activation, RateLine, activations_text, rate_fields
from meter.engine.rules import change_words
from meter.errors import ConfigError, RedisUnavailable
from meter.gateway import rls
from meter.gateway.protobuf import bytes_field, fields_of, number_field
from meter.gateway.rls import RateLimitService, descriptors_in
from meter.gateway.rls_map import load_map
from meter.runtime import Runtime
from meter.testing import fake_redis, fake_settings
from tests.gateways.process import free_port

METHOD = f"/{rls.SERVICE}/ShouldRateLimit"
OK, OVER_LIMIT = 1, 2


def descriptor(hits_addend: int | None = None, **entries: str) -> bytes:
    """A descriptor as Envoy writes it."""
    pairs = (
        bytes_field(1, bytes_field(1, key.encode()) + bytes_field(2, value.encode())) for key, value in entries.items()
    )
    own = b"" if hits_addend is None else bytes_field(3, number_field(1, hits_addend) if hits_addend else b"")
    return bytes_field(2, b"".join(pairs) + own)


def request(*descriptors: bytes, hits: int = 0) -> bytes:
    return bytes_field(1, b"meter") + b"".join(descriptors) + (number_field(3, hits) if hits else b"")


@dataclass
class Answer:
    """What a RateLimitResponse says."""

    code: int
    codes: list[int]
    left: list[int]
    headers: dict[str, str]
    body: dict[str, Any]

    @classmethod
    def read(cls, message: bytes) -> Answer:
        answer = cls(0, [], [], {}, {})
        for number, value in fields_of(message):
            if number == 1 and isinstance(value, int):
                answer.code = value
            elif number == 2 and isinstance(value, bytes):
                status = dict(fields_of(value))
                answer.codes.append(int(status[1]))
                answer.left.append(int(status.get(3, 0)))
            elif number == 3 and isinstance(value, bytes):
                pair = dict(fields_of(value))
                name, text = pair[1], pair.get(2, b"")
                assert isinstance(name, bytes) and isinstance(text, bytes)
                answer.headers[name.decode()] = text.decode()
            elif number == 5 and isinstance(value, bytes):
                answer.body = json.loads(value)
        return answer


@dataclass
class Scene:
    """A user `u` with 1000 credits, the service, and a client of it."""

    engine: Engine
    call: Any

    async def ask(self, *descriptors: bytes, hits: int = 0) -> Answer:
        return Answer.read(await self.call(request(*descriptors, hits=hits)))

    async def available(self, user: str = "u") -> int:
        return int((await self.engine.run(user, operations.balance(user))).split(" ")[-3])

    async def put_card(self) -> None:
        """`m` costs 2 units a token in, 8 a token out."""
        lines = {"m": RateLine({"input": 2_000_000, "output": 8_000_000})}
        await self.engine.run_many(0, [upkeep.rates(list(rate_fields("default", 1, lines)))])
        told = activations_text([Activation(1, 0)], 1)
        await self.engine.run_many(0, [upkeep.activate("default", 1, told)])


class Unavailable(Exception):
    """The call failed, so that Envoy decides by its failure mode."""


@pytest.fixture(params=["in process", "gRPC"])
def way(request: pytest.FixtureRequest) -> str:
    """How the service is called."""
    name: str = request.param
    if name == "gRPC" and find_spec("grpc") is None:
        pytest.skip("grpcio is not installed")
    return name


@pytest.fixture
def mapped() -> dict[str, object]:
    """What the file with the keys says."""
    return {}


@pytest.fixture
async def scene(way: str, mapped: dict[str, object], tmp_path: Path) -> AsyncIterator[Scene]:
    redis, port = fake_redis(), free_port()
    settings: dict[str, Any] = {"rls": f"127.0.0.1:{port}", "gateway_timeout_ms": 10_000, "decimal_places": 0}
    if mapped:
        (tmp_path / "map.json").write_text(json.dumps(mapped))
        settings["rls_file"] = str(tmp_path / "map.json")
    async with Runtime(fake_settings(**settings), redis) as runtime, AsyncExitStack() as stack:
        await runtime.engine.run("u", operations.grant("u", "g", 1000))
        service = RateLimitService(runtime.settings, services_of(runtime))
        if way == "gRPC":
            await stack.enter_async_context(service)
            yield Scene(runtime.engine, await stack.enter_async_context(client(port)))
        else:
            yield Scene(runtime.engine, lambda message: service.should_rate_limit(message, Context()))
            await service.close()
    await redis.close()


class Context:
    """A call's context, where nobody called over gRPC."""

    async def abort(self, *_: object) -> None:
        raise Unavailable


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Any]:
    """A real client of gRPC: bytes in, bytes out."""
    aio: Any = import_module("grpc.aio")
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(METHOD)

        async def asked(message: bytes) -> bytes:
            try:
                answer: bytes = await call(message)
            except aio.AioRpcError as error:
                assert error.code().name == "UNAVAILABLE"
                raise Unavailable from error
            return answer

        yield asked


async def test_no_hits_ask_and_hits_are_charged(scene: Scene) -> None:
    """As Envoy Gateway does: a look before the request, what was used behind it."""
    before = await scene.ask(descriptor(0, user_id="u"))
    assert (before.code, before.codes, before.left) == (OK, [OK], [1000])
    behind = await scene.ask(descriptor(29, user_id="u", request_id="r-1"))
    assert (behind.code, behind.left, await scene.available()) == (OK, [971], 971)
    again = await scene.ask(descriptor(29, user_id="u", request_id="r-1"))  # the same request is charged once
    assert (again.code, await scene.available()) == (OK, 971)


def until_reset(message: bytes) -> int:
    """`duration_until_reset` of the first descriptor, in seconds."""
    status = dict(fields_of(next(value for number, value in fields_of(message) if number == 2 and value)))  # type: ignore[arg-type]
    return int(dict(fields_of(status[4]))[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("mapped", [{"hits": "asked"}])
async def test_it_tells_where_the_tightest_rate_limit_stands(scene: Scene) -> None:
    """In headers for the client; how long until one more passes where the protocol has it, too."""
    limit = change_words({"rpm": ("requests", "2", "3600000", "*", "~", "~", "~")})
    await scene.engine.run("u", operations.configure("u", rate_limits=limit))
    for left in (1, 0):
        let_through = await scene.ask(descriptor(1, user_id="u"))
        assert (let_through.code, let_through.headers["ratelimit-policy"]) == (OK, '"rpm";q=2;w=3600')
        assert let_through.headers["ratelimit"].startswith(f'"rpm";r={left};t=')
    message = await scene.call(request(descriptor(1, user_id="u")))
    refused = Answer.read(message)
    wait = refused.headers["retry-after"]
    assert (refused.code, refused.headers["x-meter-status"]) == (OVER_LIMIT, "429")
    assert refused.headers["ratelimit"] == f'"rpm";r=0;t={wait}'
    assert until_reset(message) == int(wait) and 0 < int(wait) <= 1800


@pytest.mark.parametrize(("own", "of_request", "charged"), [(None, 0, 1), (None, 7, 7), (5, 7, 5), (0, 7, 0)])
async def test_hits_are_the_descriptors_else_the_requests_else_one(
    scene: Scene, own: int | None, of_request: int, charged: int
) -> None:
    await scene.ask(descriptor(own, user_id="u"), hits=of_request)
    assert await scene.available() == 1000 - charged


async def test_who_has_nothing_is_over_the_limit_and_reads_why(scene: Scene) -> None:
    answer = await scene.ask(descriptor(0, user_id="poor"))
    assert (answer.code, answer.codes) == (OVER_LIMIT, [OVER_LIMIT])
    assert (answer.body["status"], answer.headers["x-meter-status"]) == (402, "402")
    assert answer.headers["content-type"] == "application/problem+json"


async def test_what_was_used_is_charged_as_far_as_it_goes(scene: Scene) -> None:
    """A stream ended that cost more than there is: what is there is taken, and the next look refuses."""
    answer = await scene.ask(descriptor(1500, user_id="u"))
    assert (answer.code, await scene.available()) == (OVER_LIMIT, 0)
    assert (await scene.ask(descriptor(0, user_id="u"))).code == OVER_LIMIT


@pytest.mark.parametrize("mapped", [{"hits": "asked"}])
async def test_what_is_asked_for_is_charged_whole_or_refused(scene: Scene) -> None:
    assert (await scene.ask(descriptor(1500, user_id="u"))).code == OVER_LIMIT
    assert await scene.available() == 1000
    assert (await scene.ask(descriptor(400, user_id="u"))).code == OK
    used = await scene.ask(descriptor(1500, user_id="u", hits="used"))  # a descriptor says it for itself
    assert (used.code, await scene.available()) == (OVER_LIMIT, 0)


@pytest.mark.parametrize("mapped", [{"user": ["rule-*-match-0"], "model": ["rule-*-match-1"], "request": []}])
async def test_a_file_maps_the_keys_that_a_gateway_makes(scene: Scene) -> None:
    """Envoy Gateway names its entries by rule and match."""
    entries = {"httproute/x": "httproute/x", "rule-3-match-0": "u", "rule-3-match-1": "m"}
    assert (await scene.ask(descriptor(30, **entries))).code == OK
    assert await scene.available() == 970


async def test_of_one_call_each_user_is_charged_once(scene: Scene) -> None:
    """Several rules of one route match: the largest counts."""
    await scene.ask(descriptor(3, user_id="u"), descriptor(30, user_id="u"), descriptor(2, generic_key="route"))
    assert await scene.available() == 970


async def test_one_refused_descriptor_refuses_the_call(scene: Scene) -> None:
    answer = await scene.ask(descriptor(0, user_id="u"), descriptor(0, user_id="poor"), descriptor(0, other="x"))
    assert (answer.code, answer.codes) == (OVER_LIMIT, [OK, OVER_LIMIT, OK])


@pytest.mark.parametrize(
    ("entries", "status"), [({"other": "u"}, 401), ({"user_id": "a{b}"}, 400), ({"user_id": ""}, 401)]
)
async def test_a_call_that_names_no_user_is_not_let_through(scene: Scene, entries: dict[str, str], status: int) -> None:
    answer = await scene.ask(descriptor(0, **entries))
    assert (answer.code, answer.body["status"]) == (OVER_LIMIT, status)


async def test_tokens_are_priced_by_the_users_rate_card(scene: Scene) -> None:
    await scene.put_card()
    assert (await scene.ask(descriptor(0, user_id="u", model="m"))).code == OK
    await scene.ask(descriptor(10, user_id="u", model="openai/m"))
    assert await scene.available() == 980
    await scene.ask(descriptor(10, user_id="u", model="m", dimension="output"))
    assert await scene.available() == 900
    unknown = await scene.ask(descriptor(0, user_id="u", model="nope"))  # refused before it is served
    assert (unknown.code, unknown.body["status"]) == (OVER_LIMIT, 422)


async def test_rules_judge_what_is_asked_and_not_what_was_used(scene: Scene) -> None:
    daily = {"daily": ("5", "day", "UTC", "~", "~", "~", "~")}
    await scene.engine.run("u", operations.configure("u", budgets=change_words(daily)))
    assert (await scene.ask(descriptor(0, user_id="u"))).code == OK
    assert (await scene.ask(descriptor(50, user_id="u"))).code == OK
    look = await scene.ask(descriptor(0, user_id="u"))
    assert (look.code, look.body["type"]) == (OVER_LIMIT, "/problems/budget-reached")
    assert await scene.available() == 950


async def test_while_redis_is_away_the_call_fails_and_what_was_used_is_charged_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envoy's failure_mode_deny decides about the first; about the second nobody asks again."""
    real, away = Engine.run, True

    async def run(engine: Engine, user_id: str, operation: Any) -> str:
        if away:
            raise RedisUnavailable("redis", "Redis is away")
        return await real(engine, user_id, operation)

    monkeypatch.setattr(Engine, "run", run)
    monkeypatch.setattr(rls, "RETRY_SECONDS_FIRST", 0.01)
    for hits in (0, 30):
        with pytest.raises(Unavailable):
            await scene.ask(descriptor(hits, user_id="u"))
    away = False
    while await scene.available() == 1000:
        await asyncio.sleep(0.01)
    assert await scene.available() == 970


def test_a_message_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="cut off"):
        descriptors_in(b"\x12\x7fa")
    assert descriptors_in(b"") == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [("{", "no JSON"), ('{"users": []}', "not permitted"), ('{"hits": "x"}', "used"), (None, "No such")],
)
def test_a_map_that_cannot_be_is_told(tmp_path: Path, text: str | None, fault: str) -> None:
    path = tmp_path / "map.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=fault):
        load_map(str(path))
