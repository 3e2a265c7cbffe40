"""Processes that are groups of tasks: each may end at any call that it makes of Redis or of the store."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import fakeredis
from redis import exceptions

from meter.engine.redis import RedisGateway
from meter.errors import StoreUnavailable
from meter.store.base import Store

_T = TypeVar("_T")

HAPPENED_MAX = 120
"""Then it is over: a rebuild takes some hundred calls, and need not come to its end in a weather that never does."""

_current: ContextVar[Process | None] = ContextVar("process", default=None)


class Gone(BaseException):
    """The process in which this is raised has ended: nothing that it still does has any effect."""


class Process:
    """What runs in it ends with it. `crash` is SIGKILL: nobody is asked, nothing is written any more."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_gone = False
        self.ended = asyncio.Event()
        self._tasks: dict[asyncio.Task[Any], None] = {}  # a set has an order of its own in each run

    def start(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """A task of this process; the tasks that it makes belong to it, too."""
        token = _current.set(self)
        try:
            return asyncio.get_running_loop().create_task(coroutine)
        finally:
            _current.reset(token)

    def crash(self) -> None:
        """Ends it now."""
        self.is_gone = True
        self.ended.set()
        for task in list(self._tasks):
            task.cancel()

    def own(self, task: asyncio.Task[Any]) -> None:
        self._tasks[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled():
            task.exception()  # whoever waited has it, and else asyncio would tell of it


def task_factory(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **named: Any) -> Any:
    """Makes each task belong to the process in which it is made."""
    task = asyncio.Task(coroutine, loop=loop, **named)
    process = _current.get()
    if process is not None:
        process.own(task)
    return task


@dataclass
class Fate:
    """What may happen to a call, drawn for each; all shares are of 1."""

    lot: random.Random
    fails: float = 0.0
    """Before it was made, and as often after it was done: its answer is lost."""
    crashes: float = 0.0
    lingers: float = 0.0
    """It takes seconds instead of a millisecond."""
    spared: str = "-"
    """Processes whose names begin so do not end."""
    happened: list[str] = field(default_factory=list)

    def end(self) -> None:
        """From now on nothing happens."""
        self.fails = self.crashes = self.lingers = 0.0

    async def decide(self, process: Process, call: str, error: Callable[[str], Exception]) -> None:
        """On the way there, and on the way back. Raises `Gone`, or the error."""
        if process.is_gone:
            raise Gone
        lot = self.lot
        await asyncio.sleep(lot.uniform(0.3, 4.0) if lot.random() < self.lingers else lot.uniform(0.0002, 0.003))
        if process.is_gone:
            raise Gone
        if len(self.happened) >= HAPPENED_MAX:
            self.end()
        if lot.random() < self.crashes and not process.name.startswith(self.spared):
            self.happened.append(f"{process.name} ended at {call}")
            process.crash()
            raise Gone
        if lot.random() < self.fails:
            self.happened.append(f"{process.name} had no answer to {call}")
            raise error(call)

    async def decided(
        self, process: Process, call: str, error: Callable[[str], Exception], make: Callable[[], Awaitable[_T]]
    ) -> _T:
        """The call, between its two ways."""
        await self.decide(process, call, error)
        answer = await make()
        await self.decide(process, call, error)
        return answer


def _no_redis(call: str) -> Exception:
    return exceptions.ConnectionError(f"the link broke at {call}")


def _no_store(call: str) -> Exception:
    return StoreUnavailable(f"the store went away at {call}")


class MortalRedis(RedisGateway):
    """The gateway, each of whose calls may fail or be the last of its process."""

    def __init__(self, server: fakeredis.FakeServer, process: Process, fate: Fate) -> None:
        super().__init__(fakeredis.FakeAsyncRedis(server=server))
        self._process, self._fate = process, fate

    async def call(self, *arguments: str | int) -> object:
        make = super().call
        return await self._fate.decided(self._process, str(arguments[0]), _no_redis, lambda: make(*arguments))

    async def command(self, *arguments: str | int | bytes) -> Any:
        make = super().command
        return await self._fate.decided(self._process, str(arguments[0]), _no_redis, lambda: make(*arguments))

    async def wait_for_entry(self, outbox_key: str, after_seq: int, seconds: float, *, asking: bool = False) -> bool:
        make = super().wait_for_entry
        return await self._fate.decided(
            self._process, "XREAD", _no_redis, lambda: make(outbox_key, after_seq, seconds, asking=asking)
        )


class MortalStore:
    """A store, each of whose calls may fail or be the last of its process."""

    def __init__(self, store: Store, process: Process, fate: Fate) -> None:
        self._store, self._process, self._fate = store, process, fate

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._store, name)
        if not inspect.iscoroutinefunction(real):
            return real

        async def called(*arguments: object, **named: object) -> object:
            return await self._fate.decided(self._process, name, _no_store, lambda: real(*arguments, **named))

        return called
