"""P8 with real processes: `meter dev`, and webhooks whose servers take a connection and never answer.

With 290 of them it is done by hand: `python -m tests.e2e.test_hanging_targets 290`, which prints how long it took.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2

from tests.alerts.receiver import receiver
from tests.alerts.silent import never, odd
from tests.api.sidecar import wait_for
from tests.e2e.processes import MeterProcess, environment, free_port

ALERTS, HEALTHY = 20, 8
PATIENCE_SECONDS = 120.0


async def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for what must come."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        await asyncio.sleep(0.02)


async def served_beside(hanging_number: int, folder: Path) -> tuple[float, float]:
    """How long, in seconds, the calls took that make the alerts, and how long after the last one the healthy targets
    had all of them.
    """
    port = free_port()
    env = environment(webhook_allow_private=1, webhooks_max=500)
    async with AsyncExitStack() as stack:
        hanging, healthy = await stack.enter_async_context(odd(never)), await stack.enter_async_context(receiver())
        process = stack.enter_context(MeterProcess("dev", "--port", str(port), cwd=folder, env=env, name="dev"))
        http = stack.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=20))

        def ready() -> bool:
            assert process.running, process.log
            try:
                return str(http.get("/readyz").json()["parts"]["worker"]["status"]) == "ok"
            except httpx2.TransportError:
                return False

        def post(path: str, body: object) -> None:
            assert http.post(path, json=body).is_success

        def prepare() -> None:
            wait_for(ready, "the worker")
            urls = [f"{hanging.url}/{n}" for n in range(hanging_number)] + [
                f"{healthy.url}/{n}" for n in range(HEALTHY)
            ]
            for url in urls:
                post("/credits/webhooks", {"url": url, "kinds": ["credits_exhausted"]})
            for n in range(ALERTS):
                post("/credits/add", {"user_id": f"u{n}", "amount": 1})

        def spend() -> None:
            for n in range(ALERTS):
                post("/credits/deduct", {"user_id": f"u{n}", "amount": 1})

        await asyncio.to_thread(prepare)
        began = time.monotonic()
        await asyncio.to_thread(spend)
        spent = time.monotonic()
        await until(lambda: len(healthy.received) == ALERTS * HEALTHY, "all alerts at the healthy targets")
        took = spent - began, time.monotonic() - spent
        assert len(hanging.begun) <= hanging_number, "somebody waited until attempts had ended"
        assert len({one.id for one in healthy.received}) == ALERTS * HEALTHY
        return took


async def test_p8_targets_that_hang_are_in_nobodys_way(tmp_path: Path) -> None:
    await served_beside(30, tmp_path)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        told = asyncio.run(served_beside(int(sys.argv[1]), Path(made)))
    sys.stdout.write(
        f"{ALERTS * HEALTHY} alerts at {HEALTHY} healthy targets beside {sys.argv[1]}, "
        f"{told[1]:.2f} s after the last of {ALERTS} calls, which took {told[0]:.2f} s\n"
    )
