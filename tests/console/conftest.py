"""The console of a sidecar in process, as a browser on this machine sees it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.testclient import TestClient

from meter import Meter
from meter.contract.answers import Balance
from meter.contract.keys import IssuedKey
from meter.testing import app_in_step, meter_in_step
from tests.servers import fake_server

SAME_ORIGIN = {"sec-fetch-site": "same-origin"}
USER = "northwind/translate-prod"


class Browser:
    """Pages by their path, and forms as they are there."""

    def __init__(self, http: TestClient, client: Any, meter: Meter) -> None:
        self.http = http
        self.client = client
        self.meter = meter
        self.text = ""

    def open(self, path: str, *, status: int = 200, **query: Any) -> str:
        """The HTML of a page."""
        found = self.http.get(f"/console{path}" + (f"?{urlencode(query)}" if query else ""))
        assert found.status_code == status, found.text
        return found.text

    def fields(self, page: str, action: str) -> dict[str, str]:
        """The hidden fields of the form of a page."""
        form = next(one for one in re.findall(r"<form.*?</form>", page, re.DOTALL) if f'action="{action}"' in one)
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form)
        return {name: unescape(value) for name, value in hidden}

    def post(self, path: str, fields: dict[str, str], *, follow: bool = True, site: str = "same-origin") -> Any:
        """The answer to a form that was on a page of that site."""
        headers = {"sec-fetch-site": site}
        return self.http.post(f"/console{path}", data=fields, headers=headers, follow_redirects=follow)

    def act(self, action: str, typed: dict[str, str], **about: str) -> Any:
        """What comes of an action whose form was opened and filled in."""
        asked: dict[str, Any] = {"id": USER, **about}
        page = self.open(f"/user/{action}", **asked)
        return self.post(f"/user/{action}", {**self.fields(page, f"/console/user/{action}"), **typed})

    def log_in(self, text: str) -> Any:
        """The answer to a login."""
        return self.post("/login", {"key": text, "next": ""}, follow=False)

    def credits(self, user_id: str = USER) -> Any:
        """What a user can spend."""
        return asyncio.run(self._balance(user_id))

    async def _balance(self, user_id: str) -> object:
        found = await self.meter.balance(user_id)
        assert isinstance(found, Balance)
        return found.available


def _browser(**settings: object) -> Iterator[Browser]:
    server = fake_server()
    meter = meter_in_step(server.fake, partitions=1)
    app = app_in_step(server.fake, partitions=1, **settings)
    with TestClient(app, base_url="http://127.0.0.1:8000", client=("127.0.0.1", 50_000)) as http:
        yield Browser(http, server.client, meter)


@pytest.fixture
def open_console() -> Iterator[Browser]:
    """Without keys: whoever is on this machine."""
    yield from _browser()


@pytest.fixture
def paying_console() -> Iterator[Browser]:
    """One whose deployment has a provider of payments."""
    yield from _browser(payments="webhook:https://pay.example", payments_secret="whsec_MDEyMzQ1Njc4OWFi")


@pytest.fixture
def locked() -> Iterator[Browser]:
    """With METER_AUTH=keys; `text` is an operator's key, and nobody is logged in."""
    for browser in _browser(auth="keys"):
        browser.text = issued(browser, scopes=["admin:read", "admin:write"])
        yield browser


def issued(browser: Browser, user_id: str | None = None, **members: Any) -> str:
    """The text of a new key."""
    made = asyncio.run(browser.meter.create_key(user_id, **members))
    assert isinstance(made, IssuedKey) and made.key
    return made.key
