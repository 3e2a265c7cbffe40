"""How a long-running process of ours collects cyclic garbage: rarely, and never by walking what lives as long as it."""

from __future__ import annotations

import gc

COLLECT_AFTER = 100_000
"""Objects that come to be before the youngest are looked at. A request makes some hundred and a flush some hundred
thousand, nearly all of which counting references frees; with CPython's 700 a flush spent half of its time collecting.
"""


def collect_garbage_rarely() -> None:
    """Call once, when everything is imported and made, in a process that is ours alone."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
