"""The gateway is answered in time, and a request that was refused for that leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
from fakeredis import FakeAsyncRedis

from meter.app import services_of
from meter.config import Settings
from meter.engine import operations
from meter.engine.engine import Engine
from meter.engine.programs import Program
from meter.engine.redis import RedisGateway
from meter.errors import Overloaded, RedisUnavailable
from meter.gateway.handlers import GatewayHandlers
from meter.http.exchange import Coroutine, Request, awaitable
from meter.http.rendered import Rendered
from meter.runtime import Runtime
from meter.testing import fake_settings

DEADLINE_MS = 20


class HangingRedis(RedisGateway):
    """While `free` is not set, calls wait before (or, `applied`, after) they are applied."""

    def __init__(self) -> None:
        super().__init__(FakeAsyncRedis())
        self.free = asyncio.Event()
        self.free.set()
        self.applied = False

    async def run(self, program: Program, keys: Sequence[str], arguments: Sequence[str | int]) -> str:
        if not self.applied:
            await self.free.wait()
        reply = await super().run(program, keys, arguments)
        if self.applied:
            await self.free.wait()
        return reply


@dataclass
class Scene:
    """A user `u` with 1000 credits and the handlers on a Redis that can hang."""

    redis: HangingRedis
    engine: Engine
    authorize: Coroutine
    commit: Coroutine

    async def balances(self) -> list[str]:
        line = await self.engine.run("u", operations.balance("u"))
        return line.split(" ")[-3:-1]

    async def until_balances(self, *expected: str) -> None:
        async with asyncio.timeout(10):
            while await self.balances() != list(expected):
                await asyncio.sleep(0.001)


def settings(**overrides: object) -> Settings:
    return fake_settings(
        gateway_timeout_ms=DEADLINE_MS, gateway_on_missing_usage="estimate", decimal_places=0, **overrides
    )


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    redis = HangingRedis()
    async with Runtime(settings(), redis) as runtime:
        handlers = GatewayHandlers(services_of(runtime))
        await runtime.engine.run("u", operations.grant("u", "g", 1000))
        yield Scene(redis, runtime.engine, awaitable(handlers.authorize), awaitable(handlers.commit))
        redis.free.set()
    await redis.close()


def request(query: str = "", **headers: str) -> Request:
    return Request({}, query, {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()})


def header(rendered: Rendered, name: bytes) -> bytes:
    return dict(rendered.headers)[name]


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("headers", [{}, {"x_request_id": "one"}])
async def test_a_reserve_that_comes_too_late_is_refused_and_undone(
    scene: Scene, headers: dict[str, str], *, applied: bool
) -> None:
    scene.redis.free.clear()
    scene.redis.applied = applied

    answer = await scene.authorize(request(x_user_id="u", **headers))

    assert answer.status == 503
    assert b'"reason":"redis"' in answer.body
    assert header(answer, b"x-reservation-id") == b""
    scene.redis.free.set()
    await scene.until_balances("1000", "0")


async def test_nginx_is_told_when_to_come_again(scene: Scene) -> None:
    scene.redis.free.clear()

    answer = await scene.authorize(request("dialect=nginx", x_user_id="u"))

    assert (answer.status, answer.body) == (403, b"")
    assert header(answer, b"x-meter-status") == b"503"
    assert header(answer, b"retry-after") == b"1"
    assert header(answer, b"x-meter-problem") == b"metering-unavailable"


async def test_a_commit_that_was_not_answered_in_time_is_done_and_can_be_repeated(scene: Scene) -> None:
    made = await scene.authorize(request(x_user_id="u"))
    told = {"x_reservation_id": header(made, b"x-reservation-id").decode(), "x_credits_actual": "30"}
    scene.redis.free.clear()

    assert (await scene.commit(request(**told))).status == 503

    scene.redis.free.set()
    await scene.until_balances("970", "0")
    again = await scene.commit(request(**told))
    assert (again.status, again.replayed) == (200, True)


@pytest.mark.parametrize("query", ["", "mode=deduct", "mode=check"])
async def test_a_full_queue_is_503_at_once(scene: Scene, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise Overloaded("queue", "full")

    monkeypatch.setattr(scene.engine, "submit", full)
    monkeypatch.setattr(scene.engine, "submit_for_reservation", full)

    assert b'"reason":"queue"' in (await scene.authorize(request(query, x_user_id="u"))).body
    assert (await scene.commit(request(x_reservation_id="r"))).status == 503


@pytest.mark.parametrize("query", ["", "mode=deduct", "mode=check"])
async def test_an_outage_is_503(scene: Scene, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(_: str, __: object, done: object) -> None:
        assert callable(done)
        done(RedisUnavailable("redis", "away"))

    monkeypatch.setattr(scene.engine, "submit", away)
    monkeypatch.setattr(scene.engine, "submit_for_reservation", away)

    assert (await scene.authorize(request(query, x_user_id="u"))).status == 503
    assert (await scene.commit(request(x_reservation_id="r"))).status == 503
