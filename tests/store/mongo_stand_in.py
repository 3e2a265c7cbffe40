"""Runs nx-27017 with one fault mended, with the options of its own command.

nx-27017 0.8.1 adds every member of an `insert` command that it does not know as one more document of the collection.
The first statement of a transaction names its read concern, so that a transaction that begins with an insert left
`{"level": "snapshot"}` among the rows. A server of MongoDB reads it as what it is.
"""

from __future__ import annotations

import sys
from typing import Any

from nx_27017 import daemon, nx_27017


class Handler(daemon.NeoSQLiteHandler):  # type: ignore[misc]
    """Reads no document out of the read concern of an insert."""

    def handle_insert(self, msg: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answers an insert, of which only the documents are added."""
        for kind, section in msg["sections"]:
            if kind == "body":
                section.pop("readConcern", None)
        answer: tuple[int, dict[str, Any]] = super().handle_insert(msg)
        return answer


if __name__ == "__main__":
    daemon.NeoSQLiteHandler = Handler
    sys.exit(nx_27017.main())
