"""The page to try the calls on: one file, nothing from elsewhere, and no markup made from data."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from meter.testing import fake_app


@pytest.fixture
def client() -> Iterator[TestClient]:
    """A running sidecar."""
    with TestClient(fake_app()) as found:
        yield found


def test_page_is_self_contained_and_never_writes_markup(client: TestClient) -> None:
    page, script = client.get("/docs"), client.get("/docs/docs.js")
    assert page.headers["content-type"].startswith("text/html")
    assert script.headers["content-type"].startswith("text/javascript")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["script-src"] == "'self'"
    assert "http:" not in page.text + script.text
    assert "https:" not in page.text + script.text
    assert re.findall(r"<script(.*?)>(.*?)</script>", page.text, re.DOTALL) == [(' src="docs/docs.js" defer', "")]
    assert not re.search(r"\son\w+=", page.text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", script.text)
    ids = set(re.findall(r'\bid="([^"]+)"', page.text))
    assert set(re.findall(r'getElementById\("([^"]+)"\)', script.text)) <= ids


def test_page_is_only_read(client: TestClient) -> None:
    response = client.post("/docs")
    assert (response.status_code, response.json()["type"]) == (405, "/problems/method-not-allowed")
    assert "GET" in response.headers["allow"]
