"""What another try may mend says when to try again (C11): clients of model providers give up without it."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from meter.testing import fake_app


@pytest.mark.parametrize("batch", [False, True])
def test_c11_too_many_reservations_say_when_to_try_again(batch: bool) -> None:
    reserve = {"user_id": "u", "amount": 1}
    with TestClient(fake_app(reservations_max=1)) as client:
        client.post("/credits/add", json={"user_id": "u", "amount": 10})
        assert client.post("/credits/reservations", json=reserve).status_code == 201
        if batch:
            operations = [{"op": "reserve", **reserve}]
            results = client.post("/credits/batch", json={"operations": operations}).json()["results"]
            assert [result["status"] for result in results] == [429]
        else:
            answer = client.post("/credits/reservations", json=reserve)
            assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
            assert answer.json()["type"] == "/problems/too-many-reservations"
