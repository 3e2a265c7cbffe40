"""Who gets into the console, and what a form has to prove."""

from __future__ import annotations

import asyncio

import pytest

from meter.api_key import read_api_key
from meter.console.logins import FAILURES_MS, IDLE_MS, WHOLE_MS, Failures, Logins, token_of
from meter.testing import fake_redis
from tests.console.conftest import SAME_ORIGIN, USER, Browser, issued
from tests.servers import fake_server

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def test_without_a_login_there_is_the_login_and_nothing_else(locked: Browser) -> None:
    for path in ("", "/find?q=u", f"/user?id={USER}", f"/user/refund?id={USER}", "/nothing"):
        found = locked.http.get(f"/console{path}", follow_redirects=False)
        assert found.status_code == 303 and found.headers["location"].startswith("/console/login"), path
    for path in ("/user/add", "/logout", "/theme"):
        found = locked.post(path, {"id": USER, "amount": "5", "reason": "x"}, follow=False)
        assert found.headers["location"] == "/console/login"
    assert locked.credits() == 0


def test_an_operators_key_logs_in_and_out(locked: Browser) -> None:
    found = locked.log_in(locked.text)

    assert (found.status_code, found.headers["location"]) == (303, "/console")
    cookie = found.headers["set-cookie"]
    assert cookie.startswith("meter=") and "HttpOnly" in cookie and "SameSite=strict" in cookie
    page = locked.open("/user", id=USER)
    everything = b"".join(locked.client.dump(key) for key in locked.client.scan_iter())
    value = cookie.partition("=")[2].partition(";")[0]
    assert locked.text.encode() not in everything and value.encode() not in everything
    assert locked.text not in page and value not in page

    locked.post("/logout", locked.fields(page, "/console/logout"))
    assert locked.client.hlen("meter:console") == 0
    assert locked.http.get("/console", follow_redirects=False).status_code == 303


def test_over_tls_the_cookie_is_of_this_host_alone(locked: Browser) -> None:
    fields = {"key": locked.text, "next": ""}
    found = locked.http.post(
        "https://meter.internal/console/login", data=fields, headers=SAME_ORIGIN, follow_redirects=False
    )
    assert found.headers["set-cookie"].startswith("__Host-meter=") and "Secure" in found.headers["set-cookie"]


@pytest.mark.parametrize("wrong", ["", "mk_live_nothing", "user"])
def test_what_is_no_operators_key_does_not_log_in(locked: Browser, wrong: str) -> None:
    text = issued(locked, USER) if wrong == "user" else wrong
    found = locked.log_in(text)
    assert found.status_code == 403 and "set-cookie" not in found.headers
    assert "no operator" in found.text and (not text or text not in found.text)


def test_five_wrong_keys_within_a_minute_have_to_wait(locked: Browser) -> None:
    assert [locked.log_in("mk_live_x").status_code for _ in range(5)] == [403] * 5
    found = locked.log_in(locked.text)
    assert (found.status_code, found.headers["retry-after"]) == (429, "60")


def test_failures_are_forgotten_after_a_minute() -> None:
    now = [0]
    failures = Failures(lambda: now[0])
    for _ in range(5):
        failures.count("a")
    assert failures.are_many("a") and not failures.are_many("b")
    now[0] = FAILURES_MS
    assert not failures.are_many("a")


def test_a_revoked_key_ends_its_logins(locked: Browser) -> None:
    key = read_api_key(locked.text)
    assert key is not None
    locked.log_in(locked.text)
    locked.open("/user", id=USER)
    asyncio.run(locked.meter.revoke_key(key.key_id))
    assert locked.http.get("/console", follow_redirects=False).status_code == 303


def test_a_login_ends_an_hour_after_its_last_page_and_twelve_after_its_first(locked: Browser) -> None:
    key = read_api_key(locked.text)
    assert key is not None

    async def run() -> list[bool]:
        logins = Logins(fake_redis(fake_server().fake), "meter")
        cookie = await logins.begin(key, 0)
        seen = [await logins.find(cookie, at) == key for at in (0, IDLE_MS - 1, 2 * IDLE_MS - 3)]
        idle = await logins.find(cookie, 4 * IDLE_MS)
        other = await logins.begin(key, 0)
        for hour in range(12):
            await logins.find(other, hour * IDLE_MS + hour)
        return [*seen, idle is None, await logins.find(other, WHOLE_MS) is None]

    assert asyncio.run(run()) == [True] * 5


def test_a_key_that_may_only_read_sees_and_changes_nothing(locked: Browser) -> None:
    locked.log_in(issued(locked, scopes=["admin:read"]))
    page = locked.open("/user", id=USER)
    assert "Actions need <code>admin:write</code>" in page and "/console/user/add" not in page
    assert "admin:write" in locked.open("/user/refund", status=403, id=USER)
    token = locked.fields(page, "/console/logout")["token"]
    found = locked.post("/user/add", {"id": USER, "amount": "5", "ends": "never", "reason": "x", "token": token})
    assert found.status_code == 403 and locked.credits() == 0


def test_who_may_not_read_is_told_so(locked: Browser) -> None:
    locked.log_in(locked.text)
    assert locked.log_in(issued(locked, scopes=["admin:write"])).status_code == 403


@pytest.mark.parametrize(
    ("site", "token"), [("cross-site", True), ("same-site", True), ("none", True), ("same-origin", False)]
)
def test_a_form_from_elsewhere_is_not_taken(locked: Browser, site: str, token: bool) -> None:
    locked.log_in(locked.text)
    fields = locked.fields(locked.open("/user/add", id=USER), "/console/user/add")
    fields |= {"amount": "5", "reason": "x", "ends": "never"}
    if not token:
        fields["token"] = token_of("another")
    found = locked.post("/user/add", fields, site=site)
    assert found.status_code == 403 and locked.credits() == 0


def test_a_form_without_what_browsers_say_is_not_taken(locked: Browser) -> None:
    locked.log_in(locked.text)
    fields = locked.fields(locked.open("/user/add", id=USER), "/console/user/add")
    assert locked.http.post("/console/user/add", data=fields).status_code == 403
    assert locked.http.post("/console/login", data={"key": locked.text}).status_code == 403


@pytest.mark.parametrize(
    "address", ["//evil.example", "https://evil.example", "/console//evil", "/consolex", "/\\evil", "/console\r\nx: y"]
)
def test_a_login_leads_to_a_page_of_the_console_alone(locked: Browser, address: str) -> None:
    found = locked.post("/login", {"key": locked.text, "next": address}, follow=False)
    assert found.headers["location"] == "/console"


def test_a_login_leads_back_to_where_it_was_asked_for(locked: Browser) -> None:
    asked = locked.http.get(f"/console/user?id={USER}", follow_redirects=False).headers["location"]
    fields = locked.fields(locked.http.get(asked).text, "/console/login")
    found = locked.post("/login", {**fields, "key": locked.text}, follow=False)
    assert found.headers["location"] == f"/console/user?id={USER}"


def test_without_keys_there_is_a_banner_and_this_machine_alone(open_console: Browser) -> None:
    assert "Nobody has to log in here." in open_console.open("")
    for headers in ({"x-forwarded-for": "203.0.113.9"}, {"host": "meter.internal"}, {"forwarded": "for=1.2.3.4"}):
        found = open_console.http.get("/console", headers=headers)
        assert found.status_code == 403 and "METER_AUTH=keys" in found.text, headers


def test_without_keys_who_is_elsewhere_is_kept_out(open_console: Browser) -> None:
    open_console.http._transport.client = ("203.0.113.9", 1)  # type: ignore[attr-defined]
    assert open_console.http.get("/console").status_code == 403


def test_every_page_says_what_browsers_may_do_with_it(locked: Browser) -> None:
    answers = [locked.http.get("/console/login"), locked.http.get("/console", follow_redirects=False)]
    locked.log_in(locked.text)
    answers += [locked.http.get(f"/console{path}") for path in ("", "/nothing", "/user?id=%00", "/static/none")]
    for found in answers:
        told = [found.headers[name] for name in ("content-security-policy", "x-content-type-options")]
        assert told == [CSP, "nosniff"]
        assert (found.headers["referrer-policy"], found.headers["cache-control"]) == ("no-referrer", "no-store")


def test_a_form_that_is_too_large_or_none_is_not_taken(locked: Browser) -> None:
    locked.log_in(locked.text)
    page = locked.open("/user/add", id=USER)
    fields = locked.fields(page, "/console/user/add")
    assert locked.post("/user/add", {**fields, "reason": "x" * 70_000}).status_code == 403
    found = locked.http.post("/console/user/add", content=b"{}", headers={**SAME_ORIGIN, "content-type": "text/plain"})
    assert found.status_code == 403
