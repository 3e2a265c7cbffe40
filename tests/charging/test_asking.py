"""The hold is made from the request itself (K17)."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.charging.admission import Admitted
from meter.charging.asking import MEDIA_TOKENS, EstimateRules, Unreadable, document_of
from meter.usage import Number

RULES = EstimateRules()


def held(body: bytes | None, told: Number | None = None, **changed: Any) -> Number:
    """What a request is held for."""
    rules = EstimateRules(**changed)
    return rules.estimate(Admitted("u", 0 if told is None else told, None, told is not None), body).amount


@pytest.mark.parametrize(
    ("asked", "output"),
    [
        ({"max_tokens": 500}, 500),
        ({"max_completion_tokens": 500, "max_tokens": 400, "n": 3}, 1500),
        ({"max_output_tokens": 500.0}, 500),
        ({"generationConfig": {"maxOutputTokens": 500, "candidateCount": 2}}, 1000),
        ({"inferenceConfig": {"maxTokens": 500}}, 500),
        ({"options": {"num_predict": 500}}, 500),
        ({"max_tokens": 2**60}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": "500"}, 500),
        ({"max_tokens": "5e2"}, None),
        ({"max_tokens": "9" * 60}, None),
        ({"generation_config": {"max_output_tokens": 500, "candidate_count": 2}}, 1000),
        ({"Options": {"NUM_PREDICT": 500}}, 500),
        ({"inferenceConfig": {"max_new_tokens": 500}}, 500),
        ({"max_tokens": 500, "n": 0}, 500),
        ({}, None),
    ],
)
def test_the_prompt_and_what_may_be_generated_are_held(asked: object, output: int | None) -> None:
    body = json.dumps(asked).encode()
    assert held(body) == (100 if output is None else -(-len(body) // 4) + output)


def test_a_long_prompt_is_held_where_nothing_bounds_what_comes() -> None:
    assert held(b'{"x":"' + b"x" * 4000 + b'"}') == 1002


def test_a_picture_counts_as_one_and_not_by_its_bytes() -> None:
    picture = json.dumps({"max_tokens": 10, "image": "data:image/png;base64," + "A" * 400_000}).encode()
    assert MEDIA_TOKENS < held(picture) < MEDIA_TOKENS + 50


def test_the_clients_estimate_only_raises_it_unless_the_owner_believes_it() -> None:
    body = b'{"max_tokens":500}'
    assert [held(body, 1), held(body, 505), held(body, 900), held(None, 1)] == [505, 505, 900, 100]
    assert [held(body, 1, believes_caller=True), held(body, None, believes_caller=True)] == [1, 505]


def test_the_owner_sets_a_floor_and_a_ceiling() -> None:
    assert held(b'{"max_tokens":1}', minimum=50) == 50
    assert held(b'{"max_tokens":10000}', 99999, maximum=600) == 600


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"null"])
def test_what_cannot_be_read_is_held_by_the_default(body: bytes) -> None:
    assert held(body) == max(100, -(-len(body) // 4))


@given(st.binary(max_size=64))
def test_any_body_has_an_estimate(body: bytes) -> None:
    assert held(body) >= 1
    with contextlib.suppress(Unreadable):
        document_of(body)
