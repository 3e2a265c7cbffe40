"""The gateway is answered in time, and a request that was refused for that leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from fakeredis import FakeAsyncRedis

from meter.app import services_of
from meter.config import Settings
from meter.engine import operations
from meter.engine.engine import Engine
from meter.engine.outbox import Entry
from meter.engine.programs import Program
from meter.engine.redis import RedisGateway
from meter.errors import Overloaded, RedisUnavailable
from meter.gateway.handlers import GatewayHandlers
from meter.http.endpoint import AnyMethod
from meter.http.exchange import Coroutine, Request, awaitable
from meter.http.rendered import Rendered
from meter.runtime import Runtime
from meter.store.base import Store
from meter.testing import fake_settings
from tests.partition import entries_of

DEADLINE_MS = 20


class HangingRedis(RedisGateway):
    """While `free` is not set, calls wait before (or, `applied`, after) they are applied."""

    def __init__(self) -> None:
        super().__init__(FakeAsyncRedis())
        self.free = asyncio.Event()
        self.free.set()
        self.applied = False
        self.calls: list[tuple[Program, Sequence[str], Sequence[str | int]]] = []

    async def run(self, program: Program, keys: Sequence[str], arguments: Sequence[str | int]) -> str:
        self.calls.append((program, keys, list(arguments)))
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
    store: Store | None
    handlers: GatewayHandlers
    authorize: Coroutine
    commit: Coroutine

    async def balances(self) -> list[str]:
        line = await self.engine.run("u", operations.balance("u"))
        return line.split(" ")[-3:-1]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    async def served(self, asked: Request, by: Coroutine | None = None) -> Rendered:
        """The answer to a request that is asked again while it is 503: a busy machine is late by itself."""
        async with asyncio.timeout(30):
            while (answer := await (by or self.authorize)(asked)).status == 503:
                await asyncio.sleep(0.01)
        return answer

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
        yield Scene(
            redis, runtime.engine, runtime.store, handlers, awaitable(handlers.authorize), awaitable(handlers.commit)
        )
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
    def away(_: str, __: object, done: object, ___: object = None) -> None:
        assert callable(done)
        done(RedisUnavailable("redis", "away"))

    monkeypatch.setattr(scene.engine, "submit", away)
    monkeypatch.setattr(scene.engine, "submit_for_reservation", away)

    assert (await scene.authorize(request(query, x_user_id="u"))).status == 503
    assert (await scene.commit(request(x_reservation_id="r"))).status == 503


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("headers", [{}, {"x_request_id": "one"}])
@pytest.mark.parametrize("dialect", ["", "&dialect=nginx"])
async def test_x4_a_deduct_that_comes_too_late_is_not_charged_and_its_retry_is_served(
    scene: Scene, headers: dict[str, str], dialect: str, *, applied: bool
) -> None:
    scene.redis.free.clear()
    scene.redis.applied = applied

    answer = await scene.authorize(request(f"mode=deduct{dialect}", x_user_id="u", **headers))
    assert answer.status == (403 if dialect else 503)
    scene.redis.free.set()
    await scene.until_balances("1000", "0")

    again = await scene.served(request(f"mode=deduct{dialect}", x_user_id="u", **headers))
    assert (again.status, header(again, b"x-credits-charged")) == (200, b"100")
    assert await scene.balances() == ["900", "0"]
    third = await scene.served(request("mode=deduct", x_user_id="u", **headers))
    assert third.status == (409 if headers else 200)


async def test_x4_a_retry_waits_until_the_undo_of_the_first_is_known(scene: Scene) -> None:
    for query in ("mode=deduct", "mode=reserve"):
        scene.redis.free.clear()
        asked = request(query, x_user_id="u", x_request_id=query.replace("=", "-"))
        assert (await scene.authorize(asked)).status == 503
        assert (await scene.authorize(asked)).status == 503
        scene.redis.free.set()
        await scene.until_balances("1000" if query == "mode=deduct" else "900", "0")
        answers = [await scene.served(asked)]
        assert answers[0].status == 200
    assert await scene.balances() == ["800", "100"]


@pytest.mark.parametrize("applied", [False, True])
async def test_x4b_the_retry_of_a_reserve_that_was_taken_back_is_served(scene: Scene, *, applied: bool) -> None:
    scene.redis.free.clear()
    scene.redis.applied = applied
    asked = request(x_user_id="u", x_request_id="one")
    assert (await scene.authorize(asked)).status == 503
    scene.redis.free.set()
    await scene.until_balances("1000", "0")

    again = await scene.served(asked)

    assert (again.status, again.replayed) == (200, False)
    assert await scene.balances() == ["900", "100"]


async def entries(scene: Scene) -> list[Entry]:
    """The outbox."""
    return entries_of(await scene.redis._client.xrange("meter:{p0}:outbox"))


async def marks(scene: Scene) -> list[bytes]:
    """What becomes of each open hold at its end, see lua/state/hold.lua."""
    texts = [text.split(b" ") for text in (await scene.redis._client.hgetall("meter:{p0}:holds")).values()]
    return [parts[3][-1:] for parts in texts if len(parts) > 3]


async def test_x4c_a_hold_whose_caller_was_refused_is_never_charged_at_its_end(scene: Scene) -> None:
    """Though every try to withdraw it fails: it is not confirmed."""
    scene.redis.free.clear()
    scene.redis.applied = True
    asked = asyncio.ensure_future(scene.authorize(request(x_user_id="u", x_request_id="one")))
    assert (await asked).status == 503
    assert await marks(scene) == [b"p"]
    scene.redis.free.set()
    await scene.until_balances("1000", "0")

    served = await scene.served(request(x_user_id="u", x_request_id="two"))
    assert served.status == 200
    await scene.balances()
    assert await marks(scene) == [b"c"]


async def test_x4_what_reaches_redis_too_late_is_not_done_though_nobody_is_left_to_undo_it(scene: Scene) -> None:
    """The sidecar may be killed as soon as it has answered 503."""
    await scene.balances()  # a reply tells Redis' clock
    for query in ("mode=deduct", "mode=reserve"):
        scene.redis.calls.clear()
        scene.redis.free.clear()
        assert (await scene.authorize(request(query, x_user_id="u"))).status == 503
        late = scene.redis.calls[0]

        reply = await RedisGateway.run(scene.redis, *late)

        assert reply.startswith("late ")
        scene.redis.free.set()
        assert await scene.balances() == ["1000", "0"]
    assert [entry.kind for entry in await entries(scene)] == ["grant"], "nothing was done and undone"


@pytest.mark.parametrize("query", ["mode=deduct", "mode=reserve"])
@pytest.mark.parametrize("headers", [{}, {"x_request_id": "one"}])
async def test_x4_a_reply_that_never_comes_is_asked_for_until_it_is_known(
    scene: Scene, query: str, headers: dict[str, str]
) -> None:
    """It was applied; without a request id nothing but its batch names it."""
    batcher = scene.engine._batchers[0]
    batcher._limits = replace(batcher._limits, timeout_seconds=0.05)
    await scene.balances()
    scene.redis.free.clear()
    scene.redis.applied = True
    assert (await scene.authorize(request(query, x_user_id="u", **headers))).status == 503
    await scene.until(lambda: any(arguments[2] == "ask" for _, _, arguments in scene.redis.calls))
    batcher._limits = replace(batcher._limits, timeout_seconds=10.0)

    scene.redis.free.set()

    await scene.until_balances("1000", "0")
    again = await scene.served(request(query, x_user_id="u", **headers))
    assert (again.status, again.replayed) == (200, False)
    assert sum(map(int, await scene.balances())) == (900 if query == "mode=deduct" else 1000)


@pytest.mark.parametrize("query", ["mode=deduct", "mode=reserve"])
@pytest.mark.parametrize("headers", [{}, {"x_request_id": "one"}])
async def test_x4_a_gateway_that_has_gone_before_its_answer_is_not_charged(
    scene: Scene, query: str, headers: dict[str, str]
) -> None:
    asked = request(query, x_user_id="u", **headers)
    told: list[Rendered] = []

    def gone(rendered: Rendered) -> bool:
        told.append(rendered)
        return False

    scene.handlers.authorize(asked, gone)

    await scene.until(lambda: told)
    await scene.until_balances("1000", "0")
    again = await scene.served(asked)
    assert (again.status, again.replayed) == (200, False)
    assert sum(map(int, await scene.balances())) == (900 if query == "mode=deduct" else 1000)


async def test_x4_the_same_request_at_two_sidecars_is_charged_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second cannot know whether the first will take its charge back: it says so, and a while later that it will
    not."""
    asked = request("mode=deduct", x_user_id="u", x_request_id="one")
    async with Runtime(settings(), scene.redis, scene.store) as runtime:
        other = awaitable(GatewayHandlers(services_of(runtime)).authorize)
        assert (await scene.served(asked)).status == 200
        assert (await scene.served(asked)).status == 409
        second = await other(asked)
        assert second.status == 503 and b'"reason":"re' in second.body
        monkeypatch.setattr("meter.gateway.withdrawals.ELSEWHERE_SECONDS", 0.0)
        assert (await scene.served(asked, other)).status == 409
    assert await scene.balances() == ["900", "0"]


async def test_x4_the_retry_at_another_sidecar_is_served_when_the_first_has_taken_its_charge_back(scene: Scene) -> None:
    asked = request("mode=deduct", x_user_id="u", x_request_id="one")
    async with Runtime(settings(), scene.redis, scene.store) as runtime:
        other = awaitable(GatewayHandlers(services_of(runtime)).authorize)
        await scene.balances()
        scene.redis.free.clear()
        scene.redis.applied = True
        assert (await scene.authorize(asked)).status == 503
        scene.redis.free.set()
        await scene.until_balances("1000", "0")
        assert (await scene.served(asked, other)).status == 200
    assert await scene.balances() == ["900", "0"]


@pytest.mark.parametrize("query", [b"mode=deduct", b"mode=reserve"])
async def test_x4_a_gateway_that_leaves_an_asgi_server_is_not_charged(scene: Scene, query: bytes) -> None:
    """Where the hot lane is off, or the server another one; a body that is announced and never sent is no departure."""
    scene.redis.free.clear()
    scene.redis.applied = True
    messages: asyncio.Queue[dict[str, object]] = asyncio.Queue()
    sent: list[object] = []
    headers = [(b"x-user-id", b"u"), (b"x-request-id", b"one"), (b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path_params": {}, "query_string": query, "headers": headers}

    async def send(message: object) -> None:
        sent.append(message)

    asked = asyncio.ensure_future(AnyMethod(scene.authorize)(scope, messages.get, send))
    await asyncio.sleep(0)
    messages.put_nowait({"type": "http.disconnect"})
    await asked
    assert sent == []
    scene.redis.free.set()
    await scene.until_balances("1000", "0")

    await scene.served(request(query.decode(), x_user_id="u", x_request_id="one"))
    assert sum(map(int, await scene.balances())) == (900 if query == b"mode=deduct" else 1000)
