"""What the processes of `meter serve --processes N` need of the one that starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meter.config import Settings


@contextmanager
def meeting_place(settings: Settings) -> Iterator[None]:
    """While it is open, processes that are started have a folder to meet in (meter/api/siblings.py), and in their
    environment what our own command line said.
    """
    from meter.api.siblings import FOLDER_VARIABLE

    with TemporaryDirectory(prefix="meter-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        for name in ("host", "port", "uds"):
            os.environ[f"METER_{name.upper()}"] = str(getattr(settings, name))
        yield
