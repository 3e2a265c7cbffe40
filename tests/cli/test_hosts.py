"""U6: a host without an address, of store and queue too, is waited for as long as is said, whatever starts."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from meter.cli import checking, operate
from meter.config import Settings
from meter.errors import ConfigError, StoreUnavailable, StoreUnknown
from meter.runtime import Runtime, addressed
from meter.store.connect import open_store
from tests.e2e.processes import environment, free_port, run_meter

URLS = ["postgresql://u:secret@store.test:1/m", "mysql://u:secret@store.test:1/m"]


@pytest.fixture(autouse=True)
def resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Knows no name that ends in .test."""
    real = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **named: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name.endswith(".test"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.parametrize("url", [*URLS, "mongodb://u:secret@store.test:1/m?serverSelectionTimeoutMS=50"])
async def test_u6_a_store_without_an_address_is_told_from_one_that_is_down(url: str) -> None:
    for host, unknown in (("store.test", True), ("127.0.0.1", False)):
        store = open_store(url.replace("store.test", host), timeout_seconds=1)
        with pytest.raises(StoreUnavailable) as raised:
            await store.open({})
        await store.close()
        assert isinstance(raised.value, StoreUnknown) is unknown
        assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", URLS)
async def test_u6_its_start_and_its_commands_end_with_one_line(url: str) -> None:
    settings = Settings(redis_url="redis://127.0.0.1:1/0", store_url=url, start_wait_seconds=0)
    runtime = Runtime(settings)
    with pytest.raises(ConfigError, match=r"^METER_STORE_URL: its host has no address.*START_WAIT_SECONDS=0 are over"):
        await runtime.check()
    await runtime.close()
    with pytest.raises(ConfigError, match=r"^METER_STORE_URL: its host has no address"):
        await operate.reconcile(settings, as_json=False)
    with pytest.raises(ConfigError, match=r"^METER_STORE_URL: its host has no address"):
        await operate.rebuild(settings, None, None, "a", as_json=False, agreed=lambda _: True)
    with pytest.raises(ConfigError, match=r"^METER_STORE_URL: its host has no address"):
        await operate.jobs(settings, ["sweep"], as_json=False)


def test_u6_the_queue_of_a_worker_is_asked_for_at_its_start() -> None:
    settings = Settings(
        redis_url="redis://127.0.0.1:1/0",
        queue_url="redis://u:secret@queue.test:1/0",
        store_url="none",
        start_wait_seconds=0,
    )
    checking.check(settings)  # what has no queue
    with pytest.raises(ConfigError, match=r"^METER_QUEUE_URL: its host has no address.* are over") as raised:
        checking.check(settings, queue=True)
    assert "secret" not in str(raised.value)


async def test_u6_what_gets_an_address_in_time_is_started_on() -> None:
    tries = 0

    async def attempt() -> None:
        nonlocal tries
        tries += 1
        if tries < 2:
            raise StoreUnknown("METER_STORE_URL: its host has no address")

    await addressed(Settings(start_wait_seconds=600), attempt)
    assert tries == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "variable"),
    [(("serve",), "store"), (("worker",), "queue"), (("jobs", "all"), "store"), (("reconcile",), "redis")],
)
def test_u6_real_processes_end_with_2(tmp_path: Path, arguments: tuple[str, ...], variable: str) -> None:
    urls = {"redis_url": "redis://127.0.0.1:1/0", "store_url": f"sqlite:///{tmp_path}/m.db"}
    scheme = "postgresql" if variable == "store" else "redis"
    urls[f"{variable}_url"] = f"{scheme}://u:secret@no-host.invalid:1/0"
    done = run_meter(*arguments, cwd=tmp_path, env=environment(**urls, start_wait_seconds=1, port=free_port()))
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"meter: METER_{variable.upper()}_URL: its host has no address")
    assert "Traceback" not in done.stderr and "secret" not in done.stderr
