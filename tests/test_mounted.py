"""U18: inside a FastAPI application the routes are in its document, or have a document of their own under the mount."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from openapi_spec_validator import validate

from meter import Meter
from meter.contract.calls import CALLS
from meter.errors import ConfigError
from meter.openapi import host
from meter.testing import fake_meter

OURS = [call for call in CALLS if call.prefix == "/credits"]


def application(meter: Meter) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with meter:
            yield

    return FastAPI(lifespan=lifespan)


def test_u18_the_hosts_document_has_every_route() -> None:
    meter = fake_meter()
    app = application(meter)
    app.include_router(meter.fastapi_router(), prefix="/billing/credits")
    with TestClient(app) as client:
        found = client.get("/openapi.json").json()
        validate(found)
        for call in OURS:
            shown = found["paths"]["/billing/credits" + call.path][call.method.lower()]
            assert shown["operationId"] == f"meter_{call.name}"
            assert "application/json" in shown["responses"][str(call.status)]["content"]
            assert (call.body is not None) == ("requestBody" in shown)
            assert any(one["name"] == "X-Request-Id" for one in shown["parameters"])
        assert '"$ref"' not in str(found["paths"]["/billing/credits/add"])
        added = client.post(
            "/billing/credits/add", json={"user_id": "team/u", "amount": 5}, headers={"x-request-id": "r"}
        )
        assert (added.status_code, added.headers["x-request-id"]) == (200, "r")
        assert client.get("/billing/credits/balance/team%2Fu").json()["available"] == 5
        assert client.get("/billing/credits/balance/team/u").json()["available"] == 5
        assert client.post("/billing/credits/reservations", json={"user_id": "team/u", "amount": 1}).status_code == 201
        refused = client.post("/billing/credits/deduct", json={"user_id": "team/u", "amount": 9})
        assert (refused.status_code, refused.headers["content-type"]) == (402, "application/problem+json")
        assert client.post("/billing/credits/deduct", json={"amount": "x"}).json()["code"] == "VALIDATION_ERROR"
        assert client.get("/docs").status_code == 200


def test_u18_a_mount_has_its_own_document_and_page() -> None:
    meter = fake_meter()
    app = application(meter)
    app.mount("/billing/credits", meter.api)
    with TestClient(app) as client:
        found = client.get("/billing/credits/openapi.json").json()
        validate(found)
        assert found["servers"] == [{"url": "/billing/credits"}]
        assert set(found["paths"]) == {call.path for call in OURS}
        page = client.get("/billing/credits/docs")
        assert page.status_code == 200 and '"docs/docs.js"' in page.text
        assert client.get("/billing/credits/docs/docs.js").status_code == 200
        assert client.post("/billing/credits/add", json={"user_id": "u", "amount": 5}).status_code == 200


def test_u18_without_fastapi_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> object:
        raise ImportError

    monkeypatch.setattr(host, "import_module", missing)
    with pytest.raises(ConfigError, match="pip install fastapi"):
        fake_meter().fastapi_router()
