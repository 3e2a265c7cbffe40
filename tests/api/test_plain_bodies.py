"""What a pattern reads of a body is what the models read of it; what they refuse, no pattern takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel

from meter.amount import AmountScale
from meter.api.plain_bodies import PlainBodies, PlainCommit, PlainDeduct, PlainReserve
from meter.contract.requests import CommitRequest, DeductRequest, ReleaseRequest, ReserveRequest
from meter.http.exchange import Request
from meter.http.reading import read_body
from meter.http.rendered import Answered

MODELS: Mapping[str, type[BaseModel]] = {
    "deduct": DeductRequest,
    "reserve": ReserveRequest,
    "commit": CommitRequest,
    "release": ReleaseRequest,
}
SCALES = {places: AmountScale(places) for places in (0, 2, 6, 12)}
JSON = {b"content-type": b"application/json"}

numbers = st.one_of(
    st.integers(0, 100).map(str),
    st.decimals(0, 10**10, places=6).map(str),
    st.integers(0, 10**17).map(str),
    st.from_regex(r"-?(0|00|[0-9]{1,12})(\.[0-9]{0,14})?([eE][+-]?[0-9]{1,2})?", fullmatch=True),
    st.sampled_from(["9007199254.740991", "9007199254.740992", "9007199254740991", "9007199254740992", "-0", "1e3"]),
    st.sampled_from(['"1"', "NaN", "Infinity", "true", "null", "1.", ".5", "01", "1_0", "٣"]),
)
users = st.one_of(
    st.sampled_from(["u", "team/u@x:y.z-1", "a" * 128, "a" * 129, "", "a b", "a\\u0062", "ü", 'a"', "a\\", "\\u0000"]),
    st.text(max_size=4),
)
gaps = st.sampled_from(["", "", "", " ", "  ", "\n", "\t", "\v", "\f", "\u00a0", "\ufeff"])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Nearly plain bodies: members in any order, twice, too many, with numbers and blanks of every kind."""
    members = {
        "user_id": f'"{draw(users)}"',
        "amount": draw(numbers),
        "ttl_seconds": draw(numbers),
        "reservation_id": '"r1"',
        "shortfall": '"partial"',
        "description": "null",
        "other": "1",
    }
    usual = st.sampled_from([["user_id", "amount"], ["user_id", "amount", "ttl_seconds"], ["amount"], []])
    names = draw(st.one_of(usual, usual, usual, st.lists(st.sampled_from(sorted(members)), max_size=4)))
    parts = [f'{draw(gaps)}"{name}"{draw(gaps)}:{draw(gaps)}{members[name]}{draw(gaps)}' for name in names]
    text = "{" + ",".join(parts) + draw(st.sampled_from(["}", "}", "}", "}", "", "} ", "}\n", "}{}", ",}"]))
    return text.encode("utf-8", "surrogatepass")


def values(found: Any) -> dict[str, Any]:
    """Members and their exact values."""
    is_model = isinstance(found, BaseModel)
    members = {name: getattr(found, name) for name in type(found).model_fields} if is_model else found._asdict()
    return {name: (type(value), value) for name, value in members.items()}


@pytest.mark.parametrize("call", MODELS)
@given(body=bodies(), places=st.sampled_from(sorted(SCALES)))
@example(body=b'{"user_id":"u","amount":1.50}', places=2)
@example(body=b'{"user_id": "u", "amount": 1.5}', places=6)
@example(body=b'{"user_id":"u","amount":9007199254.740992}', places=6)
@example(body=b'{"user_id":"u","amount":1.000}', places=2)
@example(body=b'{"user_id":"u","amount":1}\n', places=2)
@example(body=b'{"amount":0.000000000001}', places=12)
@example(body=b"", places=2)
def test_a_pattern_reads_what_the_model_reads(call: str, body: bytes, places: int) -> None:
    """And so it takes nothing that the model refuses."""
    request = Request(headers=JSON, body=body)
    read: Callable[[Request], Any] = getattr(PlainBodies(SCALES[places]), call)

    found = read(request)

    if found is not None:
        assert values(found) == values(read_body(MODELS[call], request, SCALES[places]))


@pytest.mark.parametrize(
    ("call", "body"),
    [
        *(("deduct", {"user_id": "u", "amount": amount}) for amount in (0, 1, 1.25, 999_999, 0.000001)),
        *(("reserve", {"user_id": "org/u", "amount": 1, "ttl_seconds": ttl}) for ttl in (1, 300)),
        ("reserve", {"user_id": "org/u", "amount": 2.5}),
        ("commit", {"amount": 12}),
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["compact", "as Python"])
def test_everyday_bodies_need_no_model(call: str, body: dict[str, Any], separators: tuple[str, str]) -> None:
    text = json.dumps(body, separators=separators).replace("1e-06", "0.000001").encode()

    assert getattr(PlainBodies(SCALES[6]), call)(Request(headers=JSON, body=text)) is not None


@pytest.mark.parametrize("content_type", [None, b"text/plain", b"application/json; charset=utf-8"])
def test_a_body_of_another_type_is_left_to_whoever_refuses_it(content_type: bytes | None) -> None:
    headers = {} if content_type is None else {b"content-type": content_type}
    request = Request(headers=headers, body=b'{"user_id":"u","amount":1}')

    assert PlainBodies(SCALES[6]).deduct(request) is None
    if content_type != b"application/json; charset=utf-8":
        with pytest.raises(Answered):
            read_body(DeductRequest, request, SCALES[6])


@pytest.mark.parametrize(
    ("plain", "model"), [(PlainDeduct, DeductRequest), (PlainReserve, ReserveRequest), (PlainCommit, CommitRequest)]
)
def test_a_member_that_is_new_is_missed_at_once(plain: Any, model: type[BaseModel]) -> None:
    assert set(plain._fields) == set(model.model_fields)
    for name, default in plain._field_defaults.items():
        assert model.model_fields[name].default == default
