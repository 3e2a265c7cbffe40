"""The event loop of a process of ours that starts one itself: uvloop's, which uvicorn's processes have too."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What `asyncio.Runner` makes its loop with; None where uvloop has no build: asyncio's own."""
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 (has no build for Windows)

    return uvloop.new_event_loop
