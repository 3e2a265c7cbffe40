"""Incremental readers of the usage that responses of metered upstreams report.

    shape = shape_of(Format.AUTO)                 # once per route
    reader = open_reader(shape, content_encoding=None)
    for chunk in response:
        reader.feed(chunk)
    reader.finish()
    reader.usage

Pure state machines: no I/O, bounded memory, and no exception whatever the upstream sends.
"""

from __future__ import annotations

from meter.usage.number import Number
from meter.usage.reader import INSPECT_BYTES_MAX, Reader, Unread, coding_of, open_reader
from meter.usage.shape import Format, Shape, shape_of, shape_of_results, shape_of_work
from meter.usage.usage import Usage

__all__ = [
    "INSPECT_BYTES_MAX",
    "Format",
    "Number",
    "Reader",
    "Shape",
    "Unread",
    "Usage",
    "coding_of",
    "open_reader",
    "shape_of",
    "shape_of_results",
    "shape_of_work",
]
