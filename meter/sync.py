"""Blocking twins of `Meter` and `MeterClient`, for Flask, Django, Celery and scripts.

    from meter.sync import MeterClient

    with MeterClient("http://127.0.0.1:8000") as meter:
        with meter.reserve("user-1", 50) as hold:  # raises HoldRefused when the credits are not there
            hold.commit(32.5)

Every call of `Credits` is there under its name, with its arguments, answers and exceptions: they are made from that
class, none is written down here. All run on one event loop in a thread of its own, so any number of threads may share a
twin. In a process that was forked since, as Celery's and gunicorn's are, the first call makes a new loop: make the twin
there, too.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from copy import copy
from functools import wraps
from typing import Any, Self, TypeVar

from meter.client.credits import Credits, Hold
from meter.client.over_http import MeterClient as AsyncMeterClient
from meter.errors import OtherLoop
from meter.in_process import Meter as AsyncMeter

__all__ = ["BlockingHold", "Meter", "MeterClient"]

_T = TypeVar("_T")


class _LoopThread:
    """The one event loop of this process, started by the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Runs a coroutine there and waits for it. Raises `OtherLoop` where that would stop a running event loop."""
        if _is_in_a_loop():
            coroutine.close()
            raise OtherLoop("this thread runs an event loop, which a blocking call would stop: await a meter.Meter")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()  # the caller was interrupted; where the call itself failed, it has ended
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                threading.Thread(target=self._loop.run_forever, name="meter-sync", daemon=True).start()
            return self._loop


_thread = _LoopThread()


def _blocking(name: str, member: Callable[..., Any]) -> Callable[..., Any]:
    if not inspect.iscoroutinefunction(member):
        raise TypeError(f"Credits.{name} is no coroutine: say in meter/sync.py what its blocking twin is")

    @wraps(member)
    def call(self: _Twin, *args: Any, **named: Any) -> Any:
        return _thread.run(member(self._of, *args, **named))

    return call


class _Twin:
    """Has, blocking, every call of the `Credits` that it carries out."""

    def __init__(self, of: Credits) -> None:
        self._of = of

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, member in inspect.getmembers(Credits, inspect.isfunction):
            if not name.startswith("_") and not hasattr(cls, name):
                setattr(cls, name, _blocking(name, member))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """For type checkers, which do not see what is made of `Credits`."""
        raise AttributeError(f"{type(self).__name__} has no call {name!r}")

    def by(self, actor: str) -> Self:
        """As `Credits.by`: the same meter for calls of somebody who is named."""
        found = copy(self)
        found._of = self._of.by(actor)
        return found

    def reserve(self, *args: Any, **named: Any) -> AbstractContextManager[BlockingHold]:
        """As `Credits.reserve`: a block with a hold, released at its end unless it was committed."""
        return _held(self._of.reserve(*args, **named))

    def __exit__(self, *raised: Any) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Closes every connection."""
        leave: Any = self._of
        _thread.run(leave.__aexit__(None, None, None))


class Meter(_Twin):
    """The blocking twin of `meter.Meter`: credits decided in this process."""

    def __init__(self, meter: AsyncMeter) -> None:
        super().__init__(meter)
        self._meter = meter

    @classmethod
    def connect(cls, redis_url: str | None = None, **settings: object) -> Meter:
        """As `meter.Meter.connect`; the first call, or the block, opens it."""
        return cls(AsyncMeter.connect(redis_url, **settings))

    def __enter__(self) -> Self:
        _thread.run(self._meter.__aenter__())
        return self

    def advance(self, seconds: float) -> None:
        """As `meter.Meter.advance`."""
        _thread.run(self._meter.advance(seconds))


class MeterClient(_Twin):
    """The blocking twin of `meter.MeterClient`: a sidecar over HTTP."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(AsyncMeterClient(url, **options))


class BlockingHold:
    """The blocking twin of `meter.Hold`."""

    def __init__(self, hold: Hold) -> None:
        self._hold = hold

    def __getattr__(self, name: str) -> Any:
        """What a `Hold` has, its calls blocking."""
        found = getattr(self._hold, name)
        if not inspect.iscoroutinefunction(found):
            return found

        @wraps(found)
        def call(*args: Any, **named: Any) -> Any:
            return _thread.run(found(*args, **named))

        return call


@contextmanager
def _held(manager: AbstractAsyncContextManager[Hold]) -> Iterator[BlockingHold]:
    hold = _thread.run(_entered(manager))
    try:
        yield BlockingHold(hold)
    except BaseException as error:
        if not _thread.run(_left(manager, error)):
            raise
    else:
        _thread.run(_left(manager, None))


async def _entered(manager: AbstractAsyncContextManager[Hold]) -> Hold:
    return await manager.__aenter__()


async def _left(manager: AbstractAsyncContextManager[Hold], error: BaseException | None) -> bool:
    if error is None:
        return bool(await manager.__aexit__(None, None, None))
    try:
        return bool(await manager.__aexit__(type(error), error, error.__traceback__))
    except BaseException as raised:
        if raised is error:
            return False
        raise


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
