"""The ledger log: one JSON object per line for each transaction, error and system event (the seed's JSON log file).

Lines are handed over and written by a thread of its own, so that no caller waits for a disk. The file is rotated by
size; when the disk is slower than the traffic, lines are dropped and counted, never the transactions themselves (those
are in the store). The worker writes what is in the store; who decides (the sidecar, a `Meter`) adds what was refused,
which is nowhere else. Several processes may write one file: each append is whole lines.
"""

from __future__ import annotations

import fcntl
import os
import queue
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson

from meter.amount import AmountScale
from meter.clock import time_text
from meter.config import Settings
from meter.engine.answers import NAME
from meter.engine.counts import RefusedOperation
from meter.engine.operations import Operation
from meter.ledger.refusals import CHANGES, refusal_event
from meter.log import logger
from meter.store.rows import EventRow, TransactionRow

QUEUE_MAX = 10_000
REFUSALS_MAX = 10_000
"""Refusals that wait to be written: a flood of them must not become a flood of memory."""
FILE_MAX_BYTES = 100 * 2**20
FILES_KEPT = 5

_Refusals = tuple[int, Sequence[RefusedOperation]]
"""When, and what."""

_OF_A_REFUSAL = ("operation", "refusal", "operation_id", "reservation_id", "amount")

_log = logger("meter.ledger.log_file")


class LedgerFile:
    """Appends to `path`, whose parent folders are made. Open it with `start`, end it with `close`."""

    def __init__(self, path: Path, scale: AmountScale, *, file_max_bytes: int = FILE_MAX_BYTES) -> None:
        self._path = path
        self._scale = scale
        self._file_max_bytes = file_max_bytes
        self._queue: queue.Queue[bytes | _Refusals | None] = queue.Queue(QUEUE_MAX)
        self._handed = self._taken = 0  # refusals: each of the two is written by one thread
        self._thread = threading.Thread(target=self._write, name="meter-ledger", daemon=True)
        self.drops: dict[tuple[str, ...], int] = {(): 0}
        """Lines that were not written because the disk could not keep up; as `Metrics.counted` takes it."""

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return self.drops[()]

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

    def refusals(self, refused: Sequence[RefusedOperation]) -> None:
        """Hands over what was refused; the thread makes lines of it. `Counts.on_refusals`."""
        if self._handed - self._taken + len(refused) > REFUSALS_MAX or self._queue.full():
            self.drops[()] += sum(operation[NAME] in CHANGES for operation, _ in refused)
            return
        self._handed += len(refused)
        self._queue.put_nowait((time.time_ns() // 1_000_000, refused))

    def _hand_over(self, lines: bytes) -> None:
        try:
            self._queue.put_nowait(lines)
        except queue.Full:
            self.drops[()] += lines.count(b"\n")

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
                "reference": row.reference,
                "reservation_id": row.reservation_id,
                "description": row.description,
                "metadata": row.metadata,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )

    def _write(self) -> None:
        while (found := self._queue.get()) is not None:
            lines = found if isinstance(found, bytes) else self._refused(*found)
            if not lines:
                continue
            try:
                with self._path.open("ab") as file:
                    file.write(lines)
                    size = file.tell()
                if size > self._file_max_bytes:
                    self._rotate()
            except OSError as error:
                self.drops[()] += lines.count(b"\n")
                _log.error("the ledger log cannot be written", path=str(self._path), why=str(error))
                time.sleep(1)

    def _rotate(self) -> None:
        """ledger.jsonl becomes ledger.jsonl.1 and so on; the oldest is dropped. Of several processes one does it."""
        with self._path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.tell() <= self._file_max_bytes or not _is_at(file.fileno(), self._path):
                return
            for number in range(FILES_KEPT - 1, 0, -1):
                older = self._path.with_name(f"{self._path.name}.{number}")
                if older.exists():
                    older.replace(self._path.with_name(f"{self._path.name}.{number + 1}"))
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))

    def _refused(self, at_ms: int, refused: Sequence[RefusedOperation]) -> bytes:
        self._taken += len(refused)
        return b"".join(
            self._refusal(at_ms, operation, line) for operation, line in refused if operation[NAME] in CHANGES
        )

    def _refusal(self, at_ms: int, operation: Operation, line: str) -> bytes:
        """The line of an operation that was refused; what it asked for is in `detail`."""
        event = refusal_event(self._scale, at_ms, operation, line)
        detail = {name: event.detail[name] for name in _OF_A_REFUSAL} if isinstance(event.detail, dict) else None
        return _line("error", at_ms, None, event.user_id, event.message, detail)


def ledger_log(settings: Settings) -> LedgerFile | None:
    """The file of `METER_LEDGER_FILE`, not started yet; None where there is none."""
    if not settings.ledger_file:
        return None
    return LedgerFile(Path(settings.ledger_file), AmountScale(settings.decimal_places))


def _event(row: EventRow) -> bytes:
    return _line(row.kind, row.created_at_ms, row.event_id, row.user_id, row.message, row.detail)


def _line(kind: str, at_ms: int, event_id: str | None, user_id: str | None, message: str, detail: object) -> bytes:
    line = {
        "kind": kind,
        "at": time_text(at_ms)[1:-1],
        "event_id": event_id,
        "user_id": user_id,
        "message": message,
        "detail": detail,
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _is_at(number: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`: another process may have rotated it."""
    try:
        return os.path.samestat(os.fstat(number), path.stat())
    except FileNotFoundError:
        return False
