"""The API key of a client in front of an application: docs/keys.md."""

from __future__ import annotations

import pytest
from fakeredis import FakeServer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from meter import CreditDeductionMiddleware
from meter.contract.keys import IssuedKey
from meter.testing import fake_meter


async def chat(request: Request) -> Response:
    user_id = request.state.credit_reservation.user_id
    return JSONResponse({"total_token": 15, "user": user_id})


@pytest.mark.parametrize("header", ["Authorization: Bearer {}", "x-api-key: {}"])
def test_it_pays(meter_server: FakeServer, header: str) -> None:
    meter = fake_meter(meter_server, store_url="memory://")
    app = Starlette(routes=[Route("/api/chat", chat)])
    app.add_middleware(CreditDeductionMiddleware, credit_service=meter)
    name, _, value = header.partition(": ")
    with TestClient(app) as http:
        assert http.portal is not None
        http.portal.call(meter.add, "u", 1000)
        made = http.portal.call(meter.create_key, "u")
        assert isinstance(made, IssuedKey) and made.key
        sent = {name: value.format(made.key)}
        answer = http.get("/api/chat", headers=sent)
        assert (answer.status_code, answer.json()["user"], answer.headers["x-credits-deducted"]) == (200, "u", "15")
        assert http.get("/api/chat", headers={**sent, "X-User-Id": "v"}).status_code == 400
        assert http.get("/api/chat", headers={name: value.format(made.key + "x")}).status_code == 401
        http.portal.call(meter.revoke_key, made.key_id)
        refused = http.get("/api/chat", headers=sent)
        assert (refused.status_code, refused.json()["type"]) == (401, "/problems/invalid-key")
        assert refused.headers["www-authenticate"] == 'Bearer realm="meter"'
