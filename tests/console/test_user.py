"""The page of a user, and what may be done there."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from html import unescape
from typing import Any

import pytest

from meter.contract.answers import Added, Deducted, Reserved
from meter.errors import RedisUnavailable, StoreUnavailable
from tests.console.conftest import USER, Browser

HOSTILE = ["<script>alert(1)</script>", "\"'><img src=x>", "a\\b", "😀", "a b", "%2F", "a{b}", "x" * 129, ""]


def run(call: Any) -> Any:
    return asyncio.run(call)


def test_it_says_what_is_left_in_the_order_in_which_it_burns(open_console: Browser) -> None:
    meter = open_console.meter
    run(meter.add(USER, "1000.000001", description="Top-up"))
    run(meter.add(USER, 500, priority=5, description="Welcome"))
    run(meter.hold(USER, "45.5", reference="req_1"))
    page = _plain(open_console.open("/user", id=USER))
    assert "Can spend now 1,454.500001 Held 45.50 Balance 1,500.000001 Debt 0" in page
    assert page.index("454.50") < page.index("1,000.000001")
    assert "2 grants in burn order: credits added 500.000000, credits added 1,000.000001; 45.50 of it is held." in page


def _plain(page: str) -> str:
    return unescape(" ".join(re.sub(r"<[^>]*>", " ", page.replace('<span class="dec">', "")).split()))


@pytest.mark.parametrize("amount", ["0.000001", "9007199254.740991", "1234567.1", "30"])
def test_an_amount_is_shown_digit_by_digit(open_console: Browser, amount: str) -> None:
    run(open_console.meter.add(USER, amount))
    shown = re.search(r'class="hero-n">(.*?)</dd>', open_console.open("/user", id=USER))
    assert shown is not None
    assert Decimal(re.sub(r"<[^>]*>|,", "", shown[1])) == Decimal(amount)


@pytest.mark.parametrize("user_id", HOSTILE)
def test_what_is_no_user_id_is_text_and_nothing_else(open_console: Browser, user_id: str) -> None:
    for path in ("/user", "/user/add", "/user/void"):
        page = open_console.open(path, status=404, id=user_id)
        assert "<script>alert" not in page and "<img" not in page
    page = open_console.open("/find", q=user_id)
    assert "<script>alert" not in page and "<img" not in page
    assert f"“{user_id}”" in unescape(page) or not user_id


@pytest.mark.parametrize("user_id", ["a/../b", "..", "/", "a//b", "//evil.example", "u:1@x.y_z-"])
def test_an_id_that_browsers_would_shorten_has_its_page(open_console: Browser, user_id: str) -> None:
    run(open_console.meter.add(user_id, 7))
    page = open_console.open("/user", id=user_id)
    assert f'<h1 class="mono" data-copy-text="{user_id}">{user_id}</h1>' in page
    found = open_console.http.get("/console/find", params={"q": user_id})
    assert found.url.path == "/console/user" and f">{user_id}</h1>" in found.text


def test_texts_of_others_are_escaped(open_console: Browser) -> None:
    bad = "<script>alert(1)</script>\"'"
    run(open_console.meter.add(USER, 5, description=bad, metadata={"x": bad}))
    run(open_console.meter.configure(USER, metadata={bad: bad, "api_token": "hush", "Password": "hush"}))
    page = open_console.open("/user", id=USER)
    assert "<script>alert" not in page and "&lt;script&gt;alert" in page
    assert "hush" not in page and page.count("••••") == 2


def test_nobody_was_seen(open_console: Browser) -> None:
    page = _plain(open_console.open("/user", id="nobody"))
    assert "Nobody of this name was seen. Add credits makes the account." in page and "No transaction yet." in page


def test_credits_are_added_once_however_often_the_form_is_sent(open_console: Browser) -> None:
    page = open_console.open("/user", id=USER)
    fields = {
        **open_console.fields(page, "/console/user/add"),
        "amount": "1,500.25",
        "ends": "30d",
        "reason": "Goodwill",
    }
    first, second = (open_console.post("/user/add", fields) for _ in range(2))
    assert "Added 1,500.25 credits" in first.text and "Can spend 1,500.25 now." in second.text
    assert open_console.credits() == Decimal("1500.25")
    (row,) = run(open_console.meter.history(USER)).items
    assert (row.description, row.actor) == ("Goodwill", "console")
    assert "Added" not in open_console.open("/user", id=USER), "it is told once"


def test_a_form_that_is_wrong_comes_back_as_it_was_filled_in(open_console: Browser) -> None:
    empty = open_console.act("add", {"amount": "", "reason": ""})
    assert empty.status_code == 422 and "Amount is needed." in empty.text and "Reason is needed." in empty.text
    wrong = open_console.act("add", {"amount": "-5", "ends": "1y", "reason": "<b>why</b>"})
    assert wrong.status_code == 422 and 'aria-invalid="true" aria-describedby="f-amount-why"' in wrong.text
    assert "&lt;b&gt;why&lt;/b&gt;" in wrong.text and '<option value="1y" selected>' in wrong.text
    assert open_console.credits() == 0


def test_a_charge_is_refunded_with_a_reason(open_console: Browser) -> None:
    run(open_console.meter.add(USER, 100))
    charge = run(open_console.meter.deduct(USER, "12.30", reference="req_9"))
    assert isinstance(charge, Deducted) and charge.transaction_id
    form = open_console.open("/user/refund", id=USER, tx=charge.transaction_id)
    assert "Refund 12.30 credits" in form and 'value="12.3"' in form

    done = open_console.act("refund", {"amount": "2.30", "reason": "Ticket 8841"}, tx=charge.transaction_id)
    assert "Refunded 2.30 credits. Can spend 90 now." in done.text
    more = open_console.act("refund", {"amount": "11", "reason": "Again"}, tx=charge.transaction_id)
    assert more.status_code in (409, 422) and open_console.credits() == 90


def test_taking_much_wants_the_user_id_to_be_typed(open_console: Browser) -> None:
    made = run(open_console.meter.add(USER, 1001))
    assert isinstance(made, Added)
    for typed in ("", "northwind"):
        found = open_console.act("void", {"reason": "Mistake", "confirm": typed}, grant=made.grant_id)
        assert found.status_code == 422
    assert open_console.credits() == 1001
    found = open_console.act("void", {"reason": "Mistake", "confirm": USER}, grant=made.grant_id)
    assert "Voided 1,001 credits." in found.text and open_console.credits() == 0


def test_what_a_user_has_is_set_right(open_console: Browser) -> None:
    run(open_console.meter.add(USER, 2000))
    assert open_console.act("adjust", {"amount": "1,500", "way": "take", "reason": "Twice"}).status_code == 422
    found = open_console.act("adjust", {"amount": "1,500", "way": "take", "reason": "Twice", "confirm": USER})
    assert "Took 1,500 credits. Can spend 500 now." in found.text
    found = open_console.act("adjust", {"amount": "2000", "way": "give", "reason": "An outage"})
    assert "Gave 2,000 credits. Can spend 2,500 now." in found.text
    page = _plain(open_console.open("/user", id=USER))
    assert "adjusted Twice \u22121,500" in page and "adjusted An outage +2,000" in page
    assert (
        open_console.act("adjust", {"amount": "900", "way": "take", "grant": "none", "reason": "x"}).status_code == 404
    )


def test_a_hold_is_released_and_an_account_suspended_and_resumed(open_console: Browser) -> None:
    run(open_console.meter.add(USER, 10))
    held = run(open_console.meter.hold(USER, 4))
    assert isinstance(held, Reserved)
    found = open_console.act("release", {"reason": "Stuck"}, hold=held.reservation_id)
    assert "Released 4 credits. Can spend 10 now." in found.text
    assert open_console.act("suspend", {"reason": "Unpaid", "confirm": "else"}).status_code == 422
    page = open_console.act("suspend", {"reason": "Unpaid", "confirm": USER}).text
    assert '<span class="badge bad">suspended</span>' in page
    assert "No. The account is suspended." in _plain(open_console.open("/user", id=USER, amount="1"))
    assert "Resumed." in open_console.act("resume", {"reason": "Paid"}).text


def test_the_text_of_a_key_is_shown_once(open_console: Browser) -> None:
    form = open_console.open("/user/new-key", id=USER)
    fields = {**open_console.fields(form, "/console/user/new-key"), "name": "server"}
    made = open_console.post("/user/new-key", fields)
    (text,) = re.findall(r"mk_test_\w+|mk_live_\w+", made.text)
    again = open_console.post("/user/new-key", fields)
    assert text not in again.text and "was shown when it was made" in again.text
    (key,) = run(open_console.meter.keys(USER)).items
    assert key.key_id in open_console.open("/user", id=USER)

    rotated = open_console.act("rotate-key", {"hours": "24"}, key_id=key.key_id)
    assert re.search(r"mk_\w+", rotated.text)
    wrong = open_console.act("rotate-key", {"hours": "soon"}, key_id=key.key_id)
    assert wrong.status_code == 422
    revoked = open_console.act("revoke-key", {"reason": "Leaked", "confirm": USER}, key_id=key.key_id)
    assert "Revoked." in revoked.text


def test_the_account_is_edited(open_console: Browser) -> None:
    typed = {"overdraft_limit": "1,000", "low_credit_thresholds": "200, 50", "reason": "Agreed"}
    assert "The account is changed." in open_console.act("account", typed).text
    user = run(open_console.meter.user(USER))
    assert (user.overdraft_limit, user.low_credit_thresholds) == (1000, [200, 50])


def test_a_request_is_one_row_that_opens_to_its_steps(open_console: Browser) -> None:
    run(open_console.meter.add(USER, 500))
    held = run(open_console.meter.hold(USER, 250, reference="req_7f", description="gpt-5 chat"))
    done = run(open_console.meter.commit(held.reservation_id, "212.60"))
    page = open_console.open("/user", id=USER)
    assert page.count('class="badge plain">charged') == 1 and 'class="badge held">held' not in page
    found = open_console.http.get("/console/find", params={"q": "req_7f"})
    assert found.url.path == "/console/user" and f'id="t-{done.transaction_id}"' in found.text
    assert "held 250" in _plain(found.text) and "charged 212.60" in _plain(found.text)


@pytest.mark.parametrize("call", ["keys", "runway", "transactions", "grants", "subscriptions", "reservations"])
def test_a_part_that_fails_fails_alone(open_console: Browser, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("the store is away")

    run(open_console.meter.add(USER, 321))
    monkeypatch.setattr(f"meter.client.credits.Credits.{call}", away)
    page = open_console.open("/user", id=USER)
    assert '<dd class="hero-n">321</dd>' in page
    assert ("the store is away" in page) is (call != "runway")


def test_what_may_have_been_done_can_be_sent_again(open_console: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    form = open_console.open("/user/add", id=USER)
    fields = {**open_console.fields(form, "/console/user/add"), "amount": "5", "ends": "never", "reason": "x"}

    async def away(*_: object, **__: object) -> None:
        raise RedisUnavailable("redis", "no answer")

    with monkeypatch.context() as patched:
        patched.setattr("meter.client.credits.Credits.add", away)
        found = open_console.post("/user/add", fields)
    assert found.status_code == 503 and "send the form again" in found.text
    assert open_console.fields(found.text, "/console/user/add")["key"] == fields["key"]


def test_the_theme_is_chosen(open_console: Browser) -> None:
    page = open_console.open("")
    fields = {**open_console.fields(page, "/console/theme"), "theme": "dark"}
    assert '<html lang="en" data-theme="dark">' in open_console.post("/theme", fields).text
    assert "data-theme" not in open_console.post("/theme", {**fields, "theme": "system"}).text


def test_a_change_of_amounts_with_decimals_is_history_too(open_console: Browser) -> None:
    run(open_console.meter.add(USER, 5))
    run(open_console.meter.configure(USER, low_credit_thresholds=["0.5"], overdraft_limit="1.25"))
    page = open_console.open("/user", id=USER)
    assert "account changed" in page and "low credit thresholds, overdraft limit" in page


def test_auto_top_up_is_seen_and_turned_off_and_on(paying_console: Browser) -> None:
    run(paying_console.meter.add(USER, 1000))
    terms = {"below": 20, "amount": 100, "payment_reference": "cus_1"}
    assert "auto top-up" not in paying_console.open("/user", id=USER)
    path = f"/credits/users/{USER}/top-up"
    assert paying_console.http.put(path, json=terms).json()["state"] == "on"
    assert "auto top-up on" in _plain(paying_console.open("/user", id=USER))

    page = paying_console.act("top-up-off", {"reason": "Card was stolen"}).text

    assert "Auto top-up is off." in page and "auto top-up off" in _plain(page)
    assert paying_console.http.get(path).json()["state"] == "off"
    assert "Buys 100 credits at 20" in _plain(paying_console.open("/user/top-up-on", id=USER))
    assert "auto top-up on" in _plain(paying_console.act("top-up-on", {"reason": "A new card"}).text)
