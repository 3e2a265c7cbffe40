"""U17: the blocking twins have every call, work from any thread, and say what is wrong with a second event loop."""

from __future__ import annotations

import asyncio
import gc
import inspect
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from fakeredis import FakeServer

from meter import Credits, HoldRefused, MeterClient, sync
from meter.errors import OtherLoop
from meter.testing import fake_app, fake_meter
from tests.api.sidecar import serving

CALLS = [name for name, _ in inspect.getmembers(Credits, inspect.isfunction) if not name.startswith("_")]


@pytest.fixture(params=["in process", "over HTTP"])
def meter(request: pytest.FixtureRequest) -> Iterator[sync.Meter | sync.MeterClient]:
    if request.param == "in process":
        with sync.Meter(fake_meter(store_url="memory://")) as found:
            yield found
    else:
        with serving(fake_app(FakeServer(), store_url="memory://")) as url, sync.MeterClient(url) as client:
            yield client


def test_u17_the_calls_are_those_of_credits(meter: sync.Meter) -> None:
    for name in CALLS:
        found = getattr(meter, name)
        assert not inspect.iscoroutinefunction(found), name
        if name != "reserve":
            assert inspect.signature(found) == inspect.signature(getattr(Credits, name).__get__(object())), name
    with pytest.raises(AttributeError, match="no call 'nonsense'"):
        meter.nonsense()


def test_u17_a_call_without_a_twin_is_red() -> None:
    def odd(_: Credits) -> None: ...

    with pytest.raises(TypeError, match=r"Credits\.odd is no coroutine"):
        sync._blocking("odd", odd)


def test_u17_calls_block_and_holds_are_blocks(meter: sync.Meter) -> None:
    assert meter.add("u", 100, grant_id="g").available == 100
    with meter.reserve("u", 50) as hold:
        assert hold.reserved.amount == 50
        assert hold.commit(Decimal("32.5"))
    with pytest.raises(KeyError), meter.reserve("u", 10):
        raise KeyError("the work failed")
    with pytest.raises(HoldRefused), meter.reserve("u", 1000):
        pass
    assert not meter.deduct("u", 1000)
    assert meter.balance("u").available == Decimal("67.5") and meter.balance("u").reserved == 0
    assert [row.kind for row in meter.history("u").items][:2] == ["release", "reserve"]


def test_u17_threads_share_one(meter: sync.Meter) -> None:
    meter.add("u", 100)
    with ThreadPoolExecutor(16) as pool:
        taken = list(pool.map(lambda _: bool(meter.deduct("u", 1)), range(120)))
    assert taken.count(True) == 100


async def test_u17_inside_an_event_loop_it_says_so(meter: sync.Meter) -> None:
    with pytest.raises(OtherLoop, match="this thread runs an event loop"):
        meter.balance("u")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_u17_a_meter_of_another_loop_says_so() -> None:
    """Instead of "Event loop is closed", in process and over HTTP."""
    with serving(fake_app(FakeServer())) as url:
        client = MeterClient(url)
        assert asyncio.run(client.add("u", 1))
        with pytest.raises(OtherLoop, match=r"belongs to the event loop of its first call.*meter\.sync"):
            for _ in range(3):
                asyncio.run(client.balance("u"))
        del client
        gc.collect()  # its connections can be closed in no loop


FORKED = """
import os, sys, traceback
from meter.sync import MeterClient
with MeterClient(sys.argv[1]) as parent:
    assert parent.add("u", 7)
child = os.fork()
if child == 0:
    try:
        with MeterClient(sys.argv[1]) as client:
            os._exit(int(client.balance("u").available))
    except BaseException:
        traceback.print_exc()
        os._exit(99)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_u17_a_forked_process_has_a_loop_of_its_own() -> None:
    """As the workers of Celery and gunicorn are."""
    with serving(fake_app(FakeServer())) as url:
        done = subprocess.run([sys.executable, "-c", FORKED, url], check=False, capture_output=True, text=True)
    assert done.stdout == "7\n", done.stderr
