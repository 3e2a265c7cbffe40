"""Whether Redis' time per operation stays the same when accounts, grants or holds grow, and what they weigh."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from meter.bench.ground import CHUNK, PLENTY, Ground
from meter.bench.traffic import user_name
from meter.dev.redis_server import EmbeddedServer
from meter.engine import operations
from meter.engine.operations import Operation

MEASURED = 20_000
"""Operations per measurement."""
MANY = 1000
ACCOUNTS_SMALL = 1_000
ACCOUNTS_LARGE = 100_000
ACCOUNTS_DEEP = 1_000_000
WEIGHED = 100_000


@dataclass(frozen=True, slots=True)
class FlatCost:
    """Redis' microseconds per operation with few and with many of something."""

    what: str
    few: int
    many: int
    few_us: float
    many_us: float

    @property
    def ratio(self) -> float:
        """How much dearer many are."""
        return self.many_us / self.few_us if self.few_us else 0.0


@dataclass(frozen=True, slots=True)
class Weight:
    """Bytes of Redis memory per thing."""

    what: str
    bytes_each: float


async def flat_costs(folder: Path, *, deep: bool) -> list[FlatCost]:
    """Measures on Redis servers of their own."""
    large = ACCOUNTS_DEEP if deep else ACCOUNTS_LARGE
    return [
        await _accounts(folder, large),
        await _pair(folder, "grants of the account", _with_grants),
        await _pair(folder, "open holds of the account", _with_holds),
    ]


async def weights(folder: Path) -> list[Weight]:
    """What an idle account with one grant and an open hold weigh."""
    with EmbeddedServer(data_dir=folder / "weights") as server:
        async with Ground(server.url) as ground:
            names = [user_name(number) for number in range(WEIGHED)]
            before = ground.used_bytes()
            await ground.give(names)
            ground.forget_outbox()
            accounts = ground.used_bytes()
            await ground.run(
                operations.reserve(name, ground.engine.new_reservation_id(name), 5, 3_600_000, chosen=False)
                for name in names
            )
            ground.forget_outbox()
            holds = ground.used_bytes()
    return [
        Weight("idle account with one grant", (accounts - before) / WEIGHED),
        Weight("open hold", (holds - accounts) / WEIGHED),
    ]


async def _accounts(folder: Path, large: int) -> FlatCost:
    with EmbeddedServer(data_dir=folder / "accounts") as server:
        async with Ground(server.url) as ground:
            measured = []
            for at, count in ((0, ACCOUNTS_SMALL), (ACCOUNTS_SMALL, large)):
                await ground.give(user_name(number) for number in range(at, count))
                chance = random.Random(1)
                measured.append(
                    await _cost(ground, lambda c=chance, n=count: operations.deduct(user_name(c.randrange(n)), 1))  # type: ignore[misc]
                )
    return FlatCost("accounts", ACCOUNTS_SMALL, large, *measured)


async def _pair(folder: Path, what: str, fill: Callable[[Ground, int], Iterable[Operation]]) -> FlatCost:
    """The cost with one of them and with a thousand, on one account each."""
    measured = []
    for count in (1, MANY):
        with EmbeddedServer(data_dir=folder / f"{what.split(' ', maxsplit=1)[0]}-{count}") as server:
            async with Ground(server.url) as ground:
                await ground.run(fill(ground, count))
                measured.append(await _cost(ground, lambda: operations.deduct("one", 1)))
    return FlatCost(what, 1, MANY, *measured)


def _with_grants(_: Ground, count: int) -> Iterable[Operation]:
    for number in range(count):
        yield operations.grant("one", f"g{number}", PLENTY, expires_at_ms=4_000_000_000_000 + number)


def _with_holds(ground: Ground, count: int) -> Iterable[Operation]:
    yield operations.grant("one", "g", PLENTY)
    for _ in range(count):
        yield operations.reserve("one", ground.engine.new_reservation_id("one"), 5, 3_600_000, chosen=False)


async def _cost(ground: Ground, make: Callable[[], Operation]) -> float:
    """Redis' microseconds per operation, in batches of the largest size."""
    await ground.run(make() for _ in range(CHUNK))
    before = ground.script_microseconds()
    await ground.run(make() for _ in range(MEASURED))
    spent = ground.script_microseconds() - before
    ground.forget_outbox()
    return spent / MEASURED
