"""A deployment whose number of partitions is changed: what it does before, and what must be true of it afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from meter import Meter
from meter.config import Settings
from meter.contract.answers import Refusal
from meter.engine import operations
from meter.engine.redis import RedisGateway
from meter.errors import MeterError
from meter.gateway.ids import reservation_id_of
from meter.ledger.numbers import numbers_of
from meter.ledger.pending_grants import pending_row
from meter.ledger.repartition import Repartition, RepartitionReport
from meter.store.base import Store
from meter.testing import fake_settings
from tests.servers import Server

USERS = [f"user-{number}" for number in range(14)] + ["org/a", "org/b/key", "team/x"]
CARD = {"m": {"input_tokens": 1000000}}
SECRET = b"of the gateway"


async def nobody() -> list[str]:
    """No process is seen."""
    return []


@dataclass
class Deployment:
    """One Redis and one store, served with whatever number of partitions a test says."""

    server: Server
    store_of: Callable[[], Store]
    gateway: RedisGateway
    settings: Settings = field(default_factory=lambda: fake_settings(test_clock=False, outbox_retention_seconds=0))

    @asynccontextmanager
    async def served(self, partitions: int) -> AsyncIterator[Meter]:
        """A sidecar in this process."""
        async with self.opened() as store:
            settings = self.settings.model_copy(update={"partitions": partitions, "store_url": "memory://"})
            async with Meter(settings, self.gateway, store) as meter:
                yield meter

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Store]:
        """The store, as another process sees it."""
        store = self.store_of()
        await store.open({"decimal_places": "6"})
        try:
            yield store
        finally:
            await store.close()

    async def move(
        self,
        partitions: int,
        seen: Callable[[], Awaitable[list[str]]] = nobody,
        wrapped: Callable[[Any], Any] = lambda found: found,
    ) -> RepartitionReport:
        """`meter repartition`, without its questions; `wrapped` stands in front of Redis and the store."""
        async with self.opened() as store:
            numbers = await numbers_of(store)
            assert numbers is not None
            command = Repartition(self.settings, wrapped(self.gateway), wrapped(store), numbers, seen)
            await command.check(partitions)
            await command.drain()
            return await command.run(partitions)


def shown(answer: Any) -> dict[str, Any]:
    """An answer that must be none of refusal."""
    assert not isinstance(answer, Refusal), answer
    found: dict[str, Any] = answer.model_dump(mode="json")
    return found


@dataclass
class Story:
    """What was done before, with the answers of then."""

    calls: list[tuple[str, Mapping[str, Any], dict[str, Any]]] = field(default_factory=list)
    """(method, arguments, answer) of calls that have a key, or an id that their caller chose."""
    open: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """(user, request) of open reservations that a gateway named."""
    keys: dict[str, str] = field(default_factory=dict)
    charges: dict[str, str] = field(default_factory=dict)
    cursors: dict[str, str] = field(default_factory=dict)
    pages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    balances: dict[str, dict[str, Any]] = field(default_factory=dict)


async def lived(meter: Meter, store: Store, partitions: int, *, tag: str = "one") -> Story:
    """Does something of everything for every user, and remembers it."""
    story = Story()

    async def keyed(method: str, **arguments: Any) -> dict[str, Any]:
        answer = shown(await getattr(meter, method)(**arguments))
        story.calls.append((method, arguments, answer))
        return answer

    await keyed("put_rate_card", rate_card_id=f"card-{tag}", models=CARD, idempotency_key=f"card-{tag}")
    for user in USERS:
        await keyed("add", user_id=user, amount=100, grant_id=f"first-{tag}")
        await keyed("add", user_id=user, amount=7, idempotency_key=f"{tag}-{user}")
        for _ in range(4):
            shown(await meter.deduct(user, 1, metadata={"of": tag}))
        charge = await keyed("deduct", user_id=user, amount=3, idempotency_key=f"{tag}-d-{user}")
        story.charges[user] = charge["transaction_id"]
        held = shown(await meter.hold(user, 5, ttl_seconds=3600))
        story.open.append(held["reservation_id"])
        over = shown(await meter.hold(user, 4, ttl_seconds=3600))
        await keyed("commit", reservation_id=over["reservation_id"], amount=2, idempotency_key=f"{tag}-c-{user}")
        story.ended.append(over["reservation_id"])
        if user == "user-3":
            await keyed("hold", user_id=user, amount=2, ttl_seconds=3600, reservation_id=f"chosen-{tag}")
    for user in USERS[:6]:
        request = f"{tag}-request"
        name = reservation_id_of(user, request, place=meter._runtime.engine.place_of(user), secret=SECRET)
        one = operations.reserve(user, name, 1_000_000, 3_600_000, chosen=False)
        assert (await meter._runtime.engine.run(user, one)).startswith("0 ok")
        story.requests.append((user, request))
    for user in ("user-1", "org/a"):
        issued = shown(await meter.create_key(user, idempotency_key=f"{tag}-key-{user}"))
        story.keys[user] = issued["key"]
    shown(await meter.configure("user-2", rate_card=f"card-{tag}", overdraft_limit=3))
    shown(await meter.configure("org", budgets={"b": {"limit": 200, "window": "total"}}))
    await pending(store, partitions, tag)
    for user in USERS:
        page = shown(await meter.history(user, limit=3))
        story.cursors[user] = page["next_cursor"]
        story.pages[user] = shown(await meter.history(user, limit=500))["items"]
        story.balances[user] = figures(shown(await meter.balance(user)))
    return story


def figures(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in ("available", "reserved", "debt")}


async def pending(store: Store, partitions: int, tag: str) -> None:
    """A grant of a process that was killed between the store and Redis."""
    one = operations.grant("user-5", f"pending-{tag}", 11_000_000)
    row = pending_row(one, partitions, f"pending-{tag}", 1_000_000_000_000)
    assert await store.add_pending_grant(row) is None


async def goes_on(meter: Meter, story: Story, *, pending_credits: int = 11) -> None:
    """Everything that was answered before is answered so again, and everything goes on from there."""
    for user, before in story.balances.items():
        now = figures(shown(await meter.balance(user)))
        if user == "user-5":
            now["available"] -= pending_credits
        assert now == before, user
        assert (
            shown(await meter.history(user, limit=500, cursor=""))["items"][-len(story.pages[user]) :]
            == (story.pages[user])
        ), user
        rest = shown(await meter.history(user, limit=500, cursor=story.cursors[user]))["items"]
        assert rest == story.pages[user][3:], user
    for method, arguments, answer in story.calls:
        again = await getattr(meter, method)(**arguments)
        assert not isinstance(again, Refusal), (method, arguments, again)
        assert again.replayed, (method, arguments)
        assert comparable(again.model_dump(mode="json")) == comparable(answer), (method, arguments)
        if "idempotency_key" in arguments and "amount" in arguments:
            other = await getattr(meter, method)(**{**arguments, "amount": 77})
            assert isinstance(other, Refusal) and other.status in (409, 422), (method, arguments, other)
    for user, charge in story.charges.items():
        shown(await meter.refund(user, charge, 1))
    for name in story.ended:
        assert shown(await meter.reservation(name))["state"] == "committed"
    for number, name in enumerate(story.open):
        assert shown(await meter.reservation(name))["state"] == "open"
        shown(await meter.commit(name, 1) if number % 2 else await meter.release(name))
    engine = meter._runtime.engine
    for user, request in story.requests:
        name = reservation_id_of(user, request, place=engine.place_of(user), secret=SECRET)
        line = await engine.run_for_reservation(name, operations.commit(name, 500_000))
        assert line.startswith("0 ok"), (user, line)
    for user, key in story.keys.items():
        assert shown(await meter.deduct(api_key=key, amount=1))["user_id"] == user
    quote = await meter.deduct("user-2", usage={"model": "m", "input_tokens": 2})
    assert shown(quote)["taken"] == 2
    refused = await meter.deduct("org/a", 201)
    assert isinstance(refused, Refusal) and refused.status in (402, 403, 429), refused


def comparable(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what a repeated one may tell anew."""
    return {name: value for name, value in answer.items() if name not in ("replayed", "request_id", "expires_in")}


def killed_after(calls: int) -> Callable[[Any], Any]:
    """What ends the process in front of its n-th call to Redis or the store; those that follow never happen."""
    left = [calls]

    class Killing:
        def __init__(self, found: Any) -> None:
            self._found = found

        def __getattr__(self, name: str) -> Any:
            value = getattr(self._found, name)
            if not callable(value) or name in ("keep_to", "patience_seconds"):
                return value

            def called(*arguments: Any, **named: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed(name)
                return value(*arguments, **named)

            return called

    return Killing


class Killed(MeterError):
    """The process is gone."""
