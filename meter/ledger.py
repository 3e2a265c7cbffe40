"""The ledger log: one JSON object per line for each transaction, error and system event (the seed's JSON log file).

Lines are handed over and written by a thread of its own, so that no caller waits for a disk. The file is rotated by
size; when the disk is slower than the traffic, lines are dropped and counted, never the transactions themselves (those
are in the store).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable
from logging import getLogger
from pathlib import Path

import orjson

from meter.amount import AmountScale
from meter.store.rows import EventRow, TransactionRow
from meter.wire import time_text

QUEUE_MAX = 10_000
FILE_MAX_BYTES = 100 * 2**20
FILES_KEPT = 5

_log = getLogger("meter.ledger")


class LedgerFile:
    """Appends to `path`, whose parent folders are made. Open it with `start`, end it with `close`."""

    def __init__(self, path: Path, scale: AmountScale, *, file_max_bytes: int = FILE_MAX_BYTES) -> None:
        self._path = path
        self._scale = scale
        self._file_max_bytes = file_max_bytes
        self._queue: queue.Queue[bytes | None] = queue.Queue(QUEUE_MAX)
        self._thread = threading.Thread(target=self._write, name="meter-ledger", daemon=True)
        self.dropped = 0
        """Lines that were not written because the disk could not keep up."""

    def start(self) -> None:
        """Makes the folders and starts the writing thread. Raises `OSError` when the file cannot be opened."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.open("ab").close()
        self._thread.start()

    def close(self) -> None:
        """Writes what was handed over, then ends the thread."""
        self._queue.put(None)
        self._thread.join()

    def transactions(self, rows: Iterable[TransactionRow]) -> None:
        """Hands over the lines of committed transactions."""
        lines = b"".join(self._transaction(row) for row in rows)
        if lines:
            self._hand_over(lines)

    def events(self, rows: Iterable[EventRow]) -> None:
        """Hands over the lines of events."""
        self._hand_over(b"".join(_event(row) for row in rows))

    def _hand_over(self, lines: bytes) -> None:
        try:
            self._queue.put_nowait(lines)
        except queue.Full:
            self.dropped += lines.count(b"\n")

    def _transaction(self, row: TransactionRow) -> bytes:
        text = self._scale.text
        return orjson.dumps(
            {
                "kind": "transaction",
                "at": time_text(row.created_at_ms)[1:-1],
                "transaction_id": row.transaction_id,
                "operation": row.kind,
                "user_id": row.user_id,
                "amount": text(row.amount),
                "available": text(row.available_after),
                "reserved": text(row.reserved_after),
                "debt": text(row.debt_after),
                "operation_id": row.operation_id,
                "reservation_id": row.reservation_id,
                "description": row.description,
                "metadata": row.metadata,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )

    def _write(self) -> None:
        while (lines := self._queue.get()) is not None:
            try:
                with self._path.open("ab") as file:
                    file.write(lines)
                    size = file.tell()
                if size > self._file_max_bytes:
                    self._rotate()
            except OSError as error:
                self.dropped += lines.count(b"\n")
                _log.error("the ledger log %s cannot be written: %s", self._path, error)
                time.sleep(1)

    def _rotate(self) -> None:
        """ledger.jsonl becomes ledger.jsonl.1 and so on; the oldest is dropped."""
        for number in range(FILES_KEPT - 1, 0, -1):
            older = self._path.with_name(f"{self._path.name}.{number}")
            if older.exists():
                older.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))


def _event(row: EventRow) -> bytes:
    line = {
        "kind": row.kind,
        "at": time_text(row.created_at_ms)[1:-1],
        "event_id": row.event_id,
        "user_id": row.user_id,
        "message": row.message,
        "detail": row.detail,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
