"""The page beside a job that runs, and beside a server that goes away."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web.page.conftest import DEVICES, Run
from tests.web.page.site import Site, opened

pytestmark = pytest.mark.e2e


def test_it_follows_a_job_from_its_beginning_to_its_end_without_being_loaded_again(run: Run, browser: Browser) -> None:
    with opened(browser) as page, opened(browser) as log:
        page.goto(run.site.url)
        log.goto(f"{run.site.url}#/events")
        expect(page.locator(".pulse")).to_have_text("Live")
        page.evaluate("window.loaded = 'once'")
        run.finish()
        expect(page.get_by_text("Done", exact=True)).to_be_visible()
        assert page.evaluate("window.loaded") == "once"
        rounds = run.site.get("api/rounds")["items"]
        expect(page.get_by_role("region", name="Rounds, table").locator("tbody tr")).to_have_count(len(rounds))
        expect(page.locator(".phases .past")).to_have_count(page.locator(".phases li").count())
        expect(page.locator("dd.figure").nth(2)).to_have_text(f"{len(DEVICES)} of {len(DEVICES)}")
        last = run.site.get("api/events?limit=2000")["items"]
        expect(log.locator(".log li")).to_have_count(len(last))
        expect(log.locator(".log li").last).to_contain_text(last[-1]["text"])
        for task in run.site.get("api/run")["last_losses"][0]["losses"]:
            expect(page.locator(".legend", has_text=task).first).to_be_visible()


def test_a_server_that_went_away_is_told_with_the_time_since_and_the_page_goes_on_when_it_is_back(
    done: Site, page: Page
) -> None:
    page.goto(done.url)
    expect(page.locator(".pulse")).to_have_text("Live")
    done.stop()
    try:
        expect(page.locator(".pulse")).to_contain_text("last update")
        expect(page.locator("h1")).to_have_text("tiny")  # what was known stays on the page
        page.get_by_role("link", name="Costs").click()
        expect(page.get_by_role("alert")).to_contain_text("goes on by itself")
    finally:
        done.start()
    expect(page.locator(".pulse")).to_have_text("Live")
    expect(page.get_by_role("heading", name="Energy by phase")).to_be_visible()


def test_a_token_that_is_not_known_is_asked_for_again(done: Site, page: Page) -> None:
    page.goto(done.url)
    page.evaluate("sessionStorage.setItem('mas-edge-token', 'of-yesterday')")
    page.reload()
    expect(page.get_by_role("heading", name="A token is needed")).to_be_visible()
    field = page.get_by_label("Token", exact=True)
    expect(field).to_be_focused()
    field.fill("of-today")
    field.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("not known")
    page.evaluate("sessionStorage.clear()")
    page.reload()  # on loopback none is needed
    expect(page.locator("h1")).to_have_text("tiny")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("#/fleet/nobody", "No such device"),
        ("#/rounds/none-of-ours", "No such round"),
        ("#/rounds/%E0%A4%A", "No such round"),  # an escape that is none
        ("#/nowhere", "tiny"),
    ],
)
def test_an_address_of_nothing_says_so(done: Site, page: Page, address: str, said: str) -> None:
    page.goto(f"{done.url}{address}")
    expect(page.get_by_role("main")).to_contain_text(said)
