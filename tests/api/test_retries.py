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


def test_a_key_names_the_grant_where_a_store_remembers_it() -> None:
    """So that another try finds what a twin of it was given, though the row of both is gone."""
    told = list[str]()
    for key, user_id in (("k", "u"), ("k", "u"), ("k", "other"), ("other", "u")):
        with TestClient(fake_app(store_url="memory://")) as client:
            body, headers = {"user_id": user_id, "amount": 1}, {"Idempotency-Key": key}
            told.append(client.post("/credits/add", json=body, headers=headers).json()["grant_id"])
    assert told[0] == told[1] and len(set(told)) == 3
