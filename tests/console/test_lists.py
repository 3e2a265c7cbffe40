"""The screens about many: overview, users, refusals, usage, the catalogue, webhooks, health."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from meter.console.rail import RAIL
from meter.errors import StoreUnavailable
from tests.api.sidecar import wait_for
from tests.console.conftest import USER, Browser, issued

SCREENS = [entry.page for _, entries in RAIL for entry in entries]


def run(call: Any) -> Any:
    return asyncio.run(call)


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page.replace('<span class="dec">', "")).split())


@pytest.mark.parametrize("screen", SCREENS)
def test_a_screen_without_anything_says_so(open_console: Browser, screen: str) -> None:
    page = open_console.open(f"/{screen}")
    assert f'href="/console/{screen}"' in page and 'aria-current="page"' in page
    assert "no answer" not in page


@pytest.mark.parametrize("screen", [*SCREENS, "user"])
def test_a_screen_is_there_while_the_store_is_away(
    open_console: Browser, monkeypatch: pytest.MonkeyPatch, screen: str
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("the store is away")

    for call in (
        "users",
        "events",
        "figures",
        "plans",
        "rate_cards",
        "codes",
        "webhooks",
        "notifications",
        "transactions",
    ):
        monkeypatch.setattr(f"meter.client.credits.Credits.{call}", away)
    open_console.open(f"/{screen}", id=USER)


def test_users_are_chosen_and_ordered_on_the_server(open_console: Browser) -> None:
    for user_id, credits_ in (("a/1", 5), ("a/2", "7.25"), ("b", 6)):
        run(open_console.meter.add(user_id, credits_))
    run(open_console.meter.configure("a/1", suspended=True))
    page = open_console.open("/users", starts_with="a/", order="-available")
    assert page.index(">a/2<") < page.index(">a/1<") and ">b<" not in page
    assert "7.25" in text_of(page) and "suspended" in page
    assert ">a/2<" not in open_console.open("/users", state="suspended")
    assert "<b>" not in open_console.open("/users", starts_with="<b>")


def test_more_users_than_a_page_has_are_on_the_next(open_console: Browser) -> None:
    for number in range(53):
        run(open_console.meter.add(f"u{number:02d}", 1))
    page = open_console.open("/users")
    following = re.search(r'href="([^"]+)">More</a>', page)
    assert following is not None
    more = open_console.http.get(following[1].replace("&amp;", "&")).text
    assert ">u49<" in page and ">u50<" in more and ">u52<" in more


def test_refusals_say_what_was_asked_and_what_there_was(open_console: Browser) -> None:
    run(open_console.meter.add(USER, 5))
    asked = {"user_id": USER, "amount": 7.5, "reference": "req_9"}
    assert open_console.http.post("/credits/deduct", json=asked).status_code == 402
    wait_for(lambda: "req_9" in open_console.open("/refusals"), "the store has the refusal")
    assert f"{USER} 7.50 5 insufficient, short 2.50 req_9" in text_of(open_console.open("/refusals"))
    assert "short 2.50" in text_of(open_console.open("/user", id=USER, show="refused"))
    found = open_console.http.get("/console/find", params={"q": "req_9"})
    assert found.url.path == "/console/user" and "5 were free" in text_of(found.text)


def test_usage_is_by_whom_and_never_part_of_a_sum(open_console: Browser) -> None:
    for user_id, spent in ((USER, 3), ("b", 1)):
        run(open_console.meter.add(user_id, 5))
        run(open_console.meter.deduct(user_id, spent))
    page = text_of(open_console.open("/usage"))
    assert "75.0 %" in page and "25.0 %" in page and "4 in 2 groups" in page
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    assert day in open_console.open("/usage", group="day")


def test_the_catalogue_shows_plans_cards_and_codes(open_console: Browser) -> None:
    meter = open_console.meter
    run(meter.create_plan(name="<Pro>", credit_limit="1000.5", price="9.99", billing_period="monthly", plan_id="pro"))
    run(meter.put_rate_card("default", {"gpt-4o": {"input": "2.5", "output": 10}}))
    code = run(meter.create_code(5, max_total=100, description="Spring"))
    plans = open_console.open("/plans")
    assert "&lt;Pro&gt;" in plans and "1,000.50" in text_of(plans) and "9.99" in plans
    assert "gpt-4o" in open_console.open("/rate-cards", id="default")
    codes = open_console.open("/codes")
    assert "0 of 100" in codes and code.code not in codes


def test_a_webhook_is_tested_and_its_secret_is_not_shown(open_console: Browser) -> None:
    made = run(open_console.meter.create_webhook("https://hooks.example/in?token=hush", description="Ours"))
    page = open_console.open("/webhooks")
    assert "https://hooks.example/in" in page and "hush" not in page and made.secret not in page
    fields = open_console.fields(page, "/console/webhooks/test")
    sent = open_console.post("/webhooks/test", fields)
    assert sent.status_code == 200 and 'role="status"' in sent.text


def test_the_overview_says_whether_it_serves_and_who_spends(open_console: Browser) -> None:
    run(open_console.meter.add(USER, 10))
    run(open_console.meter.deduct(USER, "2.5"))
    page = text_of(open_console.open(""))
    assert "Serving" in page and USER in page and "2.50" in page
    part = open_console.open("/overview", part="now")
    assert part.lstrip().startswith('<div id="now"') and "<html" not in part


def test_who_may_only_read_sees_no_button(locked: Browser) -> None:
    run(locked.meter.create_webhook("https://hooks.example/in"))
    locked.log_in(issued(locked, scopes=["admin:read"]))
    assert "/console/webhooks/test" not in locked.open("/webhooks")


def test_what_is_listed_is_to_be_had_as_a_file(locked: Browser) -> None:
    run(locked.meter.add(USER, 5))
    run(locked.meter.deduct(USER, "1.25"))
    for path in ("/user/history.csv", "/usage.csv"):
        assert locked.http.get(f"/console{path}?id={USER}", follow_redirects=False).status_code == 303
    locked.log_in(locked.text)
    page = locked.open("/usage")
    addresses = re.findall(r'href="([^"]+csv[^"]*)"', page + locked.open("/user", id=USER))
    assert len(addresses) == 2
    for address in addresses:
        found = locked.http.get(address.replace("&amp;", "&"))
        assert found.headers["content-type"].startswith("text/csv"), found.text
        assert "attachment" in found.headers["content-disposition"] and "1.25" in found.text and USER in found.text


def test_a_chart_has_the_amounts_of_the_table(open_console: Browser) -> None:
    run(open_console.meter.add(USER, 5))
    run(open_console.meter.deduct(USER, "1.000001"))
    assert "data-plot" not in open_console.open("/usage", group="day"), "one day is no line"
