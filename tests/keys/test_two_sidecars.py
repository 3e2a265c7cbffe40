"""Two sidecars of one deployment: what one revokes or changes, the very next call of the other knows."""

from __future__ import annotations

from starlette.testclient import TestClient

from meter.testing import app_in_step
from tests.keys.conftest import Counter
from tests.servers import fake_server


def test_nobody_remembers_what_a_key_may_do() -> None:
    server = fake_server()
    with (
        TestClient(app_in_step(server.fake, partitions=1)) as first_http,
        TestClient(app_in_step(server.fake, partitions=1)) as second_http,
    ):
        first, second = Counter(first_http, server.client), Counter(second_http, server.client)
        first.add("u", 100)
        for _ in range(5):
            made = first.issue("u")
            assert [one.reserve(made["key"]).status for one in (first, second, second)] == [201, 201, 201]
            first.patch(f"/keys/{made['key_id']}", {"scopes": ["read:self"]})
            assert second.reserve(made["key"]).status == 403
            first.patch(f"/keys/{made['key_id']}", {"scopes": ["spend"]})
            assert second.reserve(made["key"]).status == 201
            first.post(f"/keys/{made['key_id']}/revoke")
            second.invalid(second.reserve(made["key"]))
            first.invalid(first.reserve(made["key"]))
