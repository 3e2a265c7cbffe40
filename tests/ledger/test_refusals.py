"""What is refused is in the ledger log as an error; what is accepted costs nothing there, and no call waits for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from starlette.testclient import TestClient

from meter import Meter
from meter.testing import fake_app, fake_redis, fake_settings


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_refusals_over_http_are_error_lines(tmp_path: Path) -> None:
    path = tmp_path / "made" / "for" / "it" / "credit_ledger.jsonl"
    with TestClient(fake_app(ledger_file=str(path))) as http:
        http.post("/credits/add", json={"user_id": "u", "amount": 10})
        assert http.post("/credits/deduct", json={"user_id": "u", "amount": 4}).status_code == 200
        for _ in range(2):  # the same again is answered again: two refusals, for nothing was done
            asked = {"user_id": "u", "amount": 7.5}
            answer = http.post("/credits/deduct", json=asked, headers={"Idempotency-Key": "k"})
            assert answer.status_code == 402
        assert http.post("/credits/reservations/r9/commit", json={"amount": 1}).status_code == 404
        http.patch("/credits/users/u", json={"suspended": True})
        assert http.post("/credits/reservations", json={"user_id": "u", "amount": 1}).status_code == 403
        both = [{"op": "deduct", "user_id": "u", "amount": 1}, {"op": "reserve", "user_id": "u", "amount": 1}]
        assert http.post("/credits/batch", json={"atomic": True, "operations": both}).status_code < 500
        assert http.get("/credits/reservations/r9").status_code == 404
        assert http.post("/credits/deduct", json={"user_id": "u", "amount": -1}).status_code == 422
        assert "meter_ledger_dropped_lines_total 0.0" in http.get("/metrics").text
    found = lines(path)
    assert {line["kind"] for line in found} == {"error"}
    told = [(line["user_id"], line["message"], line["detail"]["amount"]) for line in found]
    assert told == [
        ("u", "deduct refused: insufficient", "7.5"),
        ("u", "deduct refused: insufficient", "7.5"),
        (None, "commit refused: not_found", "1"),
        ("u", "reserve refused: suspended", "1"),
        ("u", "deduct refused: suspended", "1"),
        ("u", "reserve refused: suspended", "1"),
    ]
    assert found[0]["detail"]["operation_id"] == "k"


async def test_refusals_in_process_are_error_lines(tmp_path: Path) -> None:
    async with Meter(fake_settings(ledger_file=str(tmp_path / "l")), fake_redis()) as meter:
        assert not await meter.deduct("u", 1)
    assert [line["message"] for line in lines(tmp_path / "l")] == ["deduct refused: insufficient"]


def test_without_the_file_all_is_served(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with TestClient(fake_app(ledger_file=str(tmp_path / "file" / "l"))) as http:
        assert http.post("/credits/deduct", json={"user_id": "u", "amount": 1}).status_code == 402
        assert http.post("/credits/add", json={"user_id": "u", "amount": 1}).status_code == 200
