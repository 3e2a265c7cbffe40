"""Responses, and their ends, in logs (K12)."""

from __future__ import annotations

import json
from base64 import b64encode

import pytest

from tests.gateway.caller import Caller

TOLD = {"usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}}
WHOLE = json.dumps({"text": "x" * 100, **TOLD, "tools": [{"total_tokens": 1}]})
STREAM = f'data: {{"usage":null}}\n\ndata: {json.dumps(TOLD)}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize(
    ("told", "charged"),
    [
        ({"body": WHOLE}, 29),
        ({"body_end": WHOLE[50:]}, 29),
        ({"body": STREAM}, 29),
        ({"body_end": STREAM[8:]}, 29),
        ({"body_base64": b64encode(WHOLE.encode()).decode()}, 29),
        ({"body_end_base64": b64encode(WHOLE.encode()[50:]).decode()}, 29),
        ({"body_end": WHOLE[50:], "usage": "7"}, 7),
        ({"body_end": WHOLE[50:], "usage": "0"}, 29),
        ({"body_end": WHOLE[50:], "status": 502}, 0),
        ({"body": '{"error":{"message":"x"}}'}, 0),
        ({"body": "{}"}, 0),
    ],
)
def test_k12_the_sidecar_reads_the_end_of_a_response(caller: Caller, told: dict[str, object], charged: int) -> None:
    counted = caller.logs({"reservation_id": caller.held(), "status": 200, **told})

    assert counted["accepted"] == 1
    assert caller.balance() == (1000 - charged, 0)


def test_a_body_that_is_no_base64_is_a_bad_entry(caller: Caller) -> None:
    assert caller.logs({"reservation_id": caller.held(), "body_base64": "?"})["failed"] == 1
