"""A gateway that passes its client's API key on: docs/keys.md."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.sidecar import Answer
from tests.keys.conftest import Counter, counter, mistyped

__all__ = ["counter"]


def authorize(counter: Counter, query: str = "", **headers: str) -> Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return counter.call("GET", f"/gateway/authorize{query}", headers=sent)


@pytest.fixture
def text(counter: Counter) -> str:
    found: str = counter.issue("u")["key"]
    return found


@pytest.mark.parametrize("way", ["authorization", "x_api_key"])
def test_the_gateway_is_told_whose_key_it_is(counter: Counter, text: str, way: str) -> None:
    value = f"Bearer {text}" if way == "authorization" else text

    answer = authorize(counter, x_estimated_tokens="2", x_request_id="r1", **{way: value})
    assert (answer.status, answer.headers["x-user-id"]) == (200, "u")
    assert (answer.headers["x-credits-reserved"], answer.headers["x-credits-remaining"]) == ("2", "3")
    again = authorize(counter, x_estimated_tokens="2", x_request_id="r1", **{way: value})
    assert again.headers["x-reservation-id"] == answer.headers["x-reservation-id"]
    by_user = authorize(counter, x_estimated_tokens="2", x_request_id="r1", x_user_id="u")
    assert by_user.headers["x-reservation-id"] == answer.headers["x-reservation-id"], "the hold is the request's"
    assert "x-user-id" not in by_user.headers
    done = counter.call("GET", "/gateway/commit", headers={"x-user-id": "u", "x-request-id": "r1"})
    assert done.status == 200


@pytest.mark.parametrize(("query", "charged"), [("?mode=deduct", "1"), ("?mode=check", None)])
def test_each_mode_takes_it(counter: Counter, text: str, query: str, charged: str | None) -> None:
    answer = authorize(counter, query, x_estimated_tokens="1", authorization=f"bearer {text}")

    assert (answer.status, answer.headers["x-user-id"]) == (200, "u")
    assert answer.headers.get("x-credits-charged") == charged
    counter.post(f"/keys/{counter.get('/keys?user_id=u')['items'][0]['key_id']}/revoke")
    refused = authorize(counter, query, x_estimated_tokens="1", authorization=f"Bearer {text}")
    assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Bearer realm="meter"')
    assert "x-user-id" not in refused.headers


def test_what_refuses_it(counter: Counter, text: str) -> None:
    def told(**headers: str) -> tuple[int, Any]:
        answer = authorize(counter, x_estimated_tokens="1", **headers)
        return answer.status, answer.body and answer.body["type"]

    blind = counter.issue("u", scopes=["read:self"])["key"]
    bearer = f"Bearer {text}"
    assert told(authorization=bearer, x_user_id="u")[0] == 200
    assert told(authorization=bearer, x_user_id="v") == (400, "/problems/invalid-id")
    assert told(authorization=bearer, x_user_id="u, v") == (400, "/problems/invalid-id")
    assert told(authorization=bearer, x_api_key=blind) == (400, "/problems/invalid-id")
    assert told(authorization=f"{bearer}, {bearer}") == (401, "/problems/invalid-key")
    assert told(authorization=f"Bearer {mistyped(text)}", x_user_id="u") == (401, "/problems/invalid-key")
    assert told(authorization=f"Bearer {blind}") == (403, "/problems/key-not-allowed")
    assert told(authorization="Bearer sk-of-a-provider", x_user_id="u")[0] == 200
    assert told(authorization="Bearer sk-of-a-provider") == (401, "/problems/missing-identity")


def test_a_gateway_of_nginx_is_told_in_its_dialect(counter: Counter, text: str) -> None:
    refused = authorize(counter, "?dialect=nginx", authorization=f"Bearer {text[:-1]}")

    assert (refused.status, refused.headers["x-meter-status"], refused.headers["x-meter-problem"]) == (
        403,
        "401",
        "invalid-key",
    )
