"""Changing METER_GATEWAY_SECRET while gateways go on: docs/gateways.md."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fakeredis import FakeServer
from starlette.testclient import TestClient

from meter.gateway.ids import NAMES_MAX, ReservationNames
from meter.testing import fake_app
from tests.gateway.caller import PATIENT_MS, Caller, refusal

OLD = {"gateway_secret": "old"}
STEPS = (OLD, {**OLD, "gateway_secret_other": "new"}, {"gateway_secret": "new", "gateway_secret_other": "old"})
"""What a sidecar has before, and in both of the steps between which the secret is the other one."""


@contextmanager
def sidecar(server: FakeServer, settings: dict[str, str]) -> Iterator[Caller]:
    """One of those of a deployment."""
    with TestClient(fake_app(server, gateway_timeout_ms=PATIENT_MS, **settings)) as http:
        caller = Caller(http, server)
        yield caller
        caller.redis.close()


@pytest.mark.parametrize("way", ["commit", "logs", "released"])
@pytest.mark.parametrize(("first", "then"), [(0, 1), (1, 0), (1, 2), (2, 1)])
def test_what_one_step_authorized_the_next_settles(first: int, then: int, way: str) -> None:
    """And the other way round, while sidecars of both are there."""
    server = FakeServer()
    with sidecar(server, STEPS[first]) as one, sidecar(server, STEPS[then]) as other:
        one.add("u", 1000)
        held = one.held(x_request_id="r-1")
        named = {"x_user_id": "u", "x_request_id": "r-1"}
        if way == "commit":
            answer = other.commit(**named, x_credits_actual="30")
            assert (answer.status_code, answer.headers["x-reservation-id"]) == (200, held)
            assert other.commit(**named, x_credits_actual="30").status_code == 200, "told again, it is known"
        elif way == "logs":
            told = {"user_id": "u", "request_id": "r-1", "status": 200, "usage": 30}
            other.logs(told)
        else:
            assert other.commit(**named, x_upstream_status="500").status_code == 200
        assert other.balance() == (1000 if way == "released" else 970, 0)


def test_without_the_overlap_nobody_finds_it() -> None:
    server = FakeServer()
    with sidecar(server, OLD) as one, sidecar(server, {"gateway_secret": "new"}) as other:
        one.add("u", 1000)
        one.held(x_request_id="r-1")
        answer = other.commit(x_user_id="u", x_request_id="r-1", x_credits_actual="30")
        refusal(answer, 404, "reservation-not-found")
        assert other.balance() == (900, 100)


def test_what_is_remembered_of_other_names_is_bounded() -> None:
    names = ReservationNames(lambda _: "0", "new", "old")
    for number in range(NAMES_MAX + 50):
        names.of("u", f"r-{number}")
    assert len(names._others) == NAMES_MAX
    assert not ReservationNames(lambda _: "0", "new")._others
