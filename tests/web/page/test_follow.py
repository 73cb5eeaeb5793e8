"""The page beside a job that runs, and beside a server that goes away."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from mas_edge.web.tokens import TokenStore
from tests.web.page.conftest import DEVICES, Run
from tests.web.page.site import Site, opened, serving

pytestmark = pytest.mark.e2e


def test_it_starts_pauses_resumes_and_follows_a_job_to_its_end_without_being_loaded_again(
    run: Run, browser: Browser
) -> None:
    with opened(browser) as page, opened(browser) as log:
        page.goto(run.site.url)
        log.goto(f"{run.site.url}#/events")
        page.evaluate("window.loaded = 'once'")
        expect(page.locator(".pulse")).to_have_text("Live")
        expect(page.get_by_text("Waiting for start")).to_be_visible()
        expect(page.get_by_text("The job waits for its start.").first).to_be_visible()
        page.get_by_role("button", name="Start").press("Enter")
        expect(page.get_by_text("Running", exact=True)).to_be_visible()
        expect(page.get_by_role("button", name="Pause")).to_be_focused()  # who steers by keyboard is where they were
        page.keyboard.press("Enter")
        expect(page.get_by_text("Paused", exact=True)).to_be_visible()
        assert run.site.get("api/run")["control"] == "paused"
        expect(page.get_by_role("button", name="Resume")).to_be_focused()
        page.keyboard.press("Enter")
        run.fleet.finish()
        expect(page.get_by_text("Done", exact=True)).to_be_visible()
        assert page.evaluate("window.loaded") == "once"
        rounds = run.site.get("api/rounds")["items"]
        expect(page.get_by_role("region", name="Rounds, table").locator("tbody tr")).to_have_count(len(rounds))
        expect(page.locator(".phases .past")).to_have_count(page.locator(".phases li").count())
        expect(page.locator("dd.figure").nth(2)).to_have_text(f"{len(DEVICES)} of {len(DEVICES)}")
        last = run.site.get("api/events?limit=2000")["items"]
        expect(log.locator(".log time")).to_have_count(len(last))
        expect(log.locator(".log li").last).to_contain_text(last[-1]["text"])
        for task in run.site.get("api/run")["last_losses"][0]["losses"]:
            expect(page.locator(".legend", has_text=task).first).to_be_visible()


def test_a_server_that_went_away_is_told_with_the_time_since_and_the_page_goes_on_when_it_is_back(
    done: Site, lenient: Page
) -> None:
    lenient.goto(done.url)
    expect(lenient.locator(".pulse")).to_have_text("Live")
    done.stop()
    try:
        expect(lenient.locator(".pulse")).to_contain_text("last update")
        expect(lenient.locator(".pulse [role=status]")).to_have_text("Offline")  # said once, and not every second
        expect(lenient.locator("h1")).to_have_text("tiny")  # what was known stays on the page
        lenient.get_by_role("link", name="Costs").click()
        expect(lenient.get_by_role("alert")).to_contain_text("goes on by itself")
    finally:
        done.start()
    expect(lenient.locator(".pulse")).to_have_text("Live")
    expect(lenient.get_by_role("heading", name="Energy by phase")).to_be_visible()


def test_a_token_that_is_not_known_is_asked_for_again(done: Site, lenient: Page) -> None:
    lenient.goto(done.url)
    lenient.evaluate("sessionStorage.setItem('mas-edge-token', 'of-yesterday')")
    lenient.reload()
    expect(lenient.get_by_role("heading", name="A token is needed")).to_be_visible()
    field = lenient.get_by_label("Token", exact=True)
    expect(field).to_be_focused()
    field.fill("of-today")
    field.press("Enter")
    expect(lenient.get_by_role("alert")).to_contain_text("not known")
    lenient.evaluate("sessionStorage.clear()")
    lenient.reload()  # on loopback none is needed
    expect(lenient.locator("h1")).to_have_text("tiny")


def test_who_has_given_a_token_is_led_on_and_asked_again_when_it_is_revoked(copy: Path, lenient: Page) -> None:
    with closing(TokenStore(copy, create=True)) as tokens, serving(copy, "--http-tokens") as site:
        lenient.goto(site.url)
        field = lenient.get_by_label("Token", exact=True)
        field.fill(tokens.new("anna", "read"))
        field.press("Enter")
        expect(lenient.locator("h1")).to_have_text("tiny")
        expect(lenient.locator("h1")).to_be_focused()
        expect(lenient.locator(".pulse")).to_have_text("Live")
        tokens.revoke("anna")
        with closing(sqlite3.connect(copy / "state.db")) as db, db:
            db.execute("UPDATE devices SET record = json_set(CAST(record AS TEXT), '$.online', json('false'))")
        expect(lenient.get_by_role("heading", name="A token is needed")).to_be_visible()


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


def test_a_rollout_is_begun_watched_and_rolled_back_from_the_page(done: Site, page: Page) -> None:
    page.goto(f"{done.url}#/rollout")
    page.get_by_label("Stages, in % of the devices").fill("100, 50")
    expect(page.get_by_role("button", name="Begin …")).to_be_disabled()
    page.get_by_label("Stages, in % of the devices").fill("50, 100")
    page.get_by_label("Seconds a stage has to stay healthy").fill("0")
    page.get_by_role("button", name="Begin …").click()
    page.get_by_role("button", name="Begin", exact=True).click()
    expect(page.locator("h1")).to_have_text("Rollout 1")
    expect(page.get_by_text("complete", exact=True)).to_be_visible()
    expect(page.locator(".stages .past")).to_have_count(2)
    expect(page.get_by_role("region", name="Devices of the rollout").get_by_text("healthy")).to_have_count(6)
    page.get_by_role("button", name="Roll back …").click()
    asked = page.get_by_role("dialog", name="Roll back?")
    expect(asked.get_by_role("button", name="Cancel")).to_be_focused()  # what cannot be taken back is not one key away
    page.keyboard.press("Escape")
    expect(asked).to_be_hidden()
    assert done.get("api/rollouts")["current"]["state"]["mode"] == "complete"
    page.get_by_role("button", name="Roll back …").click()
    asked.get_by_role("button", name="Roll back").click()
    expect(page.get_by_text("rolled back", exact=True)).to_be_visible()
    assert done.get("api/rollouts")["current"]["state"]["mode"] == "rolled_back"
