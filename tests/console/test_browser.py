"""The console in a real Chromium: what it looks like is for eyes, what it does is here. Desktop and phone, light and
dark, without JavaScript, by keyboard alone, and without anything that axe finds.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, sync_playwright

from meter.sync import MeterClient
from meter.testing import app_in_step
from tests.api.sidecar import serving
from tests.console.conftest import USER
from tests.console.test_files import AXE
from tests.servers import fake_server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
]
WIDTHS = {"desktop": 1280, "phone": 390}
PAGES: tuple[str, ...] = ("", "/find?q=nothing", f"/user?id={USER}", f"/user?id={USER}&amount=99999", "/user?id=nobody")
PAGES += ("/users", "/refusals", "/usage", "/plans", "/rate-cards", "/codes", "/webhooks", "/health")
PAGES += (f"/user/add?id={USER}", f"/user/suspend?id={USER}", f"/user/refund?id={USER}", "/nothing")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A sidecar that has seen something."""
    server = fake_server()
    app = app_in_step(server.fake, partitions=1)
    with serving(app) as found:
        with MeterClient(found) as meter:
            _seed(meter)
        yield found


@pytest.fixture(scope="module")
def browser(url: str) -> Iterator[Any]:
    """Started behind the sidecar: it leaves an event loop in this thread until it ends."""
    del url
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def _seed(meter: Any) -> None:
    meter.add(USER, 500, description="Welcome", priority=5)
    meter.add(USER, "2000.25", description="Top-up")
    meter.deduct(USER, "45", description="embeddings", reference="req_charged")
    meter.hold(USER, 120, description="gpt-5 chat", reference="req_held", ttl_seconds=600)
    held = meter.hold(USER, 250, description="gpt-5 chat", reference="req_chain")
    meter.commit(held.reservation_id, "212.60")
    meter.deduct(USER, 99_999, reference="req_refused")
    meter.configure(USER, budgets={"daily": {"limit": 5000, "window": "day"}}, low_credit_thresholds=[1000, 200])
    meter.create_key(USER, name="server")


@contextmanager
def tab(
    browser: Any, url: str, width: str = "desktop", *, theme: str = "light", scripts: bool = True
) -> Iterator[Page]:
    """A tab, which fails for what the page reports."""
    context = browser.new_context(
        viewport={"width": WIDTHS[width], "height": 900},
        color_scheme=theme,
        base_url=url,
        java_script_enabled=scripts,
    )
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(str(message.text)) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        yield page
    finally:
        context.close()
    assert [line for line in said if "the server responded with a status" not in line] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_and_no_page_is_too_wide(browser: Any, url: str, width: str, theme: str) -> None:
    with tab(browser, url, width, theme=theme) as page:
        for path in PAGES:
            page.goto(f"/console{path}")
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, (path, wide)
            assert _faults(page) == [], path


def _faults(page: Page) -> list[str]:
    """What axe finds, in a world of its own that the policy of the page does not reach."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("async () => (await axe.run()).violations.map((one) => `${one.id}: ${one.nodes[0].html}`)")
    return [str(one) for one in found]


def test_everything_works_without_javascript(browser: Any, url: str) -> None:
    with tab(browser, url, "phone", scripts=False) as page:
        page.goto("/console")
        page.fill("#q", "no-scripts")
        page.press("#q", "Enter")
        page.click("text=Open the page of a new user")
        page.fill("#a-amount", "1,000.5")
        page.fill("#a-reason", "Welcome")
        page.click("#add button")
        assert "Added 1,000.50 credits" in page.inner_text("[role=status]")
        page.fill("#amt", "2000")
        page.click("text=Check")
        assert "999.50 credits short" in page.inner_text(".verdict")
        page.click("summary[aria-label=Menu]")
        page.click(".menu button[value=dark]")
        assert page.get_attribute("html", "data-theme") == "dark"


def test_by_keyboard_alone_a_user_is_found_refunded_and_the_refusal_understood(browser: Any, url: str) -> None:
    """Tasks 1, 6 and 3: the pointer is never used."""
    with tab(browser, url) as page:
        page.goto("/console")
        keys = page.keyboard
        keys.press("/")
        keys.type("req_charged")
        keys.press("Enter")
        page.wait_for_url("**/console/user?*")
        keys.press("j")
        keys.press("f")
        page.wait_for_selector("#f-amount")
        _tab_to(page, "f-amount")
        keys.press("Control+a")
        keys.type("5")
        keys.press("Tab")
        keys.type("Ticket 1")
        keys.press("Enter")
        page.wait_for_selector("[role=status]:has-text('Refunded 5 credits')")
        assert page.evaluate("document.activeElement.textContent").startswith("Refunded 5 credits")

        keys.press("/")
        keys.type("req_refused")
        keys.press("Enter")
        page.wait_for_selector("tr.refused + tr.chain")
        assert "credits short" in page.inner_text("tr.chain").lower()
        keys.press("x")
        keys.type("1")
        keys.press("Enter")
        page.wait_for_selector(".verdict:has-text('Yes.')")


def _tab_to(page: Page, name: str) -> None:
    for _ in range(60):
        if page.evaluate("document.activeElement.id") == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{name} is not reached by Tab")


def test_a_key_opens_the_list_of_keys_and_esc_closes_it(browser: Any, url: str) -> None:
    with tab(browser, url) as page:
        page.goto("/console")
        page.keyboard.press("?")
        assert page.is_visible("#keys")
        assert _faults(page) == []
        page.keyboard.press("Escape")
        assert not page.is_visible("#keys")


def test_a_form_that_is_sent_twice_books_once(browser: Any, url: str) -> None:
    with tab(browser, url) as page:
        page.goto("/console/user?id=twice")
        page.fill("#a-amount", "7")
        page.fill("#a-reason", "Welcome")
        page.dblclick("#add button")
        page.wait_for_selector("[role=status]:has-text('Added 7 credits')")
        assert page.inner_text(".hero-n") == "7"


def test_pictures_of_every_page(browser: Any, url: str, tmp_path: Path) -> None:
    for width in WIDTHS:
        for theme in ("light", "dark"):
            with tab(browser, url, width, theme=theme) as page:
                for number, path in enumerate(PAGES):
                    page.goto(f"/console{path}")
                    picture = tmp_path / f"{number}-{width}-{theme}.png"
                    page.screenshot(path=str(picture), full_page=True)
                    assert picture.stat().st_size > 5_000
