"""What is served beside the calls: the document, its pages, and the page to try the calls on."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from meter.contract.problems import PROBLEMS
from meter.testing import fake_app
from tests.openapi.story import DOCUMENT, faults


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


def test_document_is_what_is_served(client: TestClient) -> None:
    response = client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    assert response.json() == DOCUMENT


def test_every_problem_has_an_example_and_a_page(client: TestClient) -> None:
    examples = DOCUMENT["components"]["examples"]
    assert set(examples) == set(PROBLEMS)
    for slug, kind in PROBLEMS.items():
        assert faults({"$ref": "#/components/schemas/Problem"}, examples[slug]["value"]) == []
        page = client.get(kind.type)
        assert (page.status_code, page.json()["remedy"]) == (200, kind.remedy)


def test_what_is_beside_the_surface_is_described_and_served(client: TestClient) -> None:
    described = {
        path: methods["get"]
        for path, methods in DOCUMENT["paths"].items()
        if "operating" in methods.get("get", {"tags": ()})["tags"]
    }
    assert {"/livez", "/readyz", "/metrics", "/problems/{slug}", "/openapi.json", "/docs"} == set(described)
    for path, said in described.items():
        response = client.get(path.format(slug="insufficient-credits"))
        assert response.status_code == 200
        assert response.headers["content-type"].partition(";")[0] in said["responses"]["200"]["content"]


def test_u12_the_first_page_leads_to_the_others() -> None:
    """From the machine itself: the console has no other visitors without keys."""
    with TestClient(fake_app(), base_url="http://127.0.0.1:8000", client=("127.0.0.1", 50_000)) as client:
        _leads_to_the_others(client)


def _leads_to_the_others(client: TestClient) -> None:
    page = client.get("/")

    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for target in re.findall(r'href="([^"]+)"', page.text):
        assert client.get(f"/{target}").status_code == 200
