"""The ledger log: JSON lines, in folders made for it, rotated; a slow disk costs lines and counts them."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import orjson
import pytest

from meter.amount import AmountScale
from meter.engine import operations
from meter.ledger.log_file import FILES_KEPT, LedgerFile
from meter.ledger.rebuild import Rebuild
from meter.store.rows import EventRow, TransactionRow
from tests.ledger.ground import Ground

ROW = TransactionRow(
    transaction_id="0-1-x-1",
    partition=0,
    epoch=1,
    seq=1,
    kind="deduct",
    user_id="u",
    amount=1_500_000,
    available_after=2_000_001,
    reserved_after=0,
    debt_after=0,
    created_at_ms=1_700_000_000_123,
    operation_id="key",
    description="line\nbreak",
    metadata={"a": [1]},
)
EVENT = EventRow(event_id="e", kind="system", message="m", detail={"x": 1}, created_at_ms=1_700_000_000_123)


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def opened(path: Path, **options: int) -> LedgerFile:
    log = LedgerFile(path, AmountScale(6), **options)
    log.start()
    return log


def test_each_transaction_and_event_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "made" / "for" / "it" / "ledger.jsonl"
    log = opened(path)
    log.transactions([ROW, ROW])
    log.transactions([])
    log.events([EVENT])
    log.close()
    first, second, third = lines(path)
    assert (
        first
        == second
        == {
            "kind": "transaction",
            "at": "2023-11-14T22:13:20.123Z",
            "transaction_id": "0-1-x-1",
            "operation": "deduct",
            "user_id": "u",
            "amount": "1.5",
            "available": "2.000001",
            "reserved": "0",
            "debt": "0",
            "operation_id": "key",
            "reservation_id": None,
            "reference": None,
            "description": "line\nbreak",
            "metadata": {"a": [1]},
        }
    )
    assert (third["kind"], third["message"], third["detail"]) == ("system", "m", {"x": 1})
    assert log.dropped == 0


def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    for _ in range(2):
        log = opened(tmp_path / "l")
        log.transactions([ROW])
        log.close()
    assert len(lines(tmp_path / "l")) == 2


def test_a_file_that_cannot_be_opened_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        opened(tmp_path / "file" / "l")


def test_it_is_rotated_by_size_and_the_oldest_is_dropped(tmp_path: Path) -> None:
    log = opened(tmp_path / "l", file_max_bytes=1)
    for seq in range(FILES_KEPT + 3):
        log.transactions([ROW.model_copy(update={"transaction_id": f"0-{seq}-x-1"})])
    log.close()
    kept = [lines(tmp_path / f"l.{n}")[0]["transaction_id"] for n in range(1, FILES_KEPT + 1)]
    assert kept == [f"0-{seq}-x-1" for seq in range(FILES_KEPT + 2, 2, -1)]
    assert {path.name for path in tmp_path.iterdir()} == {f"l.{n}" for n in range(1, FILES_KEPT + 1)}


def test_a_slow_disk_costs_lines_and_nothing_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meter.ledger.log_file.QUEUE_MAX", 3)
    log = LedgerFile(tmp_path / "l", AmountScale(6))
    may_write = threading.Event()
    real = log._rotate
    log._file_max_bytes = -1
    log._rotate = lambda: (may_write.wait(20), real())[1]  # type: ignore[method-assign]
    log.start()
    for _ in range(12):
        log.transactions([ROW, ROW])
    may_write.set()
    log.close()
    written = sum(len(lines(path)) for path in tmp_path.iterdir())
    assert written + log.dropped == 24
    assert log.dropped >= 2 * (12 - 3 - 1 - 1)


def test_a_disk_that_fails_is_counted_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("meter.ledger.log_file.time.sleep", lambda _: None)
    folder = tmp_path / "folder"
    log = opened(folder / "l")
    (folder / "l").unlink()
    folder.rmdir()
    with caplog.at_level(logging.ERROR):
        log.transactions([ROW])
        log.events([EVENT, EVENT])
        log.close()
    assert log.dropped == 3
    assert "cannot be written" in caplog.text


def test_refusals_of_changes_are_errors(tmp_path: Path) -> None:
    log = opened(tmp_path / "l")
    asked = operations.Asked("key")
    log.refusals(
        [
            (operations.deduct("u", 1_500_000, asked=asked), "0 insufficient u 1500000 - 1000000 0 0"),
            (operations.reserve("v", "r", 2, 1000, chosen=True), "0 suspended - 0 0 0"),
            (operations.commit("r", 7), "0 finished released w 0"),
            (operations.release("r"), "0 not_found"),
            (operations.grant("u", "g", 5, asked=operations.Asked("grant u g")), "0 exists 0 0 0"),
            (operations.reservation("r"), "0 not_found"),
        ]
    )
    log.refusals([(operations.reservation("r"), "0 not_found")])
    log.close()
    found = lines(tmp_path / "l")
    assert {line["kind"] for line in found} == {"error"}
    assert [(line["user_id"], line["message"]) for line in found] == [
        ("u", "deduct refused: insufficient"),
        ("v", "reserve refused: suspended"),
        ("w", "commit refused: finished"),
        (None, "release refused: not_found"),
        ("u", "grant refused: exists"),
    ]
    assert found[0]["detail"] == {
        "operation": "deduct",
        "refusal": "insufficient",
        "operation_id": "key",
        "reservation_id": None,
        "amount": "1.5",
    }
    assert [line["detail"]["reservation_id"] for line in found] == [None, "r", "r", "r", None]
    assert found[4]["detail"]["operation_id"] is None


def test_a_flood_of_refusals_costs_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meter.ledger.log_file.REFUSALS_MAX", 10)
    log = LedgerFile(tmp_path / "l", AmountScale(6))
    refused = [(operations.deduct("u", 1), "0 insufficient u 1 - 0 0 0")] * 4
    for _ in range(3):
        log.refusals(refused)
    log.start()
    log.close()
    assert (len(lines(tmp_path / "l")), log.dropped) == (8, 4)


def _write_much(path: Path) -> None:
    log = opened(path, file_max_bytes=4_000)
    for _ in range(60):
        log.events([EVENT])
    log.close()
    assert log.dropped == 0


def test_processes_share_a_file(tmp_path: Path) -> None:
    """Each line is whole and none is lost, whoever rotates."""
    start = multiprocessing.get_context("spawn")
    writers = [start.Process(target=_write_much, args=(tmp_path / "l",)) for _ in range(2)]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    assert [one.exitcode for one in writers] == [0, 0]
    assert sum(len(lines(path)) for path in tmp_path.iterdir()) == 120


async def test_a_rebuild_by_the_worker_is_in_the_ledger_log(live: Ground, tmp_path: Path) -> None:
    log = LedgerFile(tmp_path / "l", AmountScale(6))
    log.start()
    live.run(operations.grant("u", "g", 100))
    await live.drain()
    live.lose_everything()
    await Rebuild(live.engine, live.gateway, live.store, 86_400_000, log).partition(0)
    log.close()
    (line,) = map(orjson.loads, (tmp_path / "l").read_bytes().splitlines())
    assert line["kind"] == "system" and "was rebuilt to epoch 2" in line["message"]
