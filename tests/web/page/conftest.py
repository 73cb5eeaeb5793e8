"""One browser and one real job for all tests of the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from mas_edge.orchestrator.broker import ManagedBroker
from tests.e2e.fleet import Fleet, job_text
from tests.web.page.site import Site, opened, serving

DEVICES = ("ada", "bob", "eve")


@pytest.fixture(scope="package")  # while a browser runs, no other test can run an event loop
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    program = os.environ.get("MAS_EDGE_CHROMIUM") or shutil.which("chromium")
    if program is None:
        if os.environ.get("MAS_EDGE_REQUIRE_CHROMIUM") == "1":
            pytest.fail("chromium is required (MAS_EDGE_REQUIRE_CHROMIUM=1) but is not installed")
        pytest.skip("chromium is not installed")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses to run as root otherwise
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=sandbox)
        yield started
        started.close()


@dataclass
class Run:
    """A real job that waits for its start, and the page on it; the orchestrator stays when the job is done."""

    fleet: Fleet
    site: Site


@pytest.fixture(scope="package")
def run(mosquitto: ManagedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A job; whoever asks first starts it."""
    job = 'engines = ["torch"]\n' + job_text(rounds=4)  # one engine: half the exports
    with Fleet(mosquitto.url, tmp_path_factory.mktemp("page"), job) as fleet:
        fleet.orchestrate(stay=True, hold=True)
        fleet.snapshot()
        with serving(fleet.state) as site:
            for name in DEVICES:
                fleet.device(name)
            yield Run(fleet, site)


@pytest.fixture(scope="package")
def done(run: Run) -> Site:
    """The page on the job when it is done."""
    if run.site.get("api/run")["control"] == "held":  # a test of this module alone
        run.site.post("api/job/orders", {"verb": "start"})
    run.fleet.finish()
    return run.site


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window as wide as a desktop's."""
    with opened(browser) as window:
        yield window


@pytest.fixture
def lenient(browser: Browser) -> Iterator[Page]:
    """The same where the server ends, or says no."""
    with opened(browser, refused=True) as window:
        yield window


@pytest.fixture
def copy(done: Site, tmp_path: Path) -> Path:
    """A copy of the state of the job that is done, which a test may change before it serves it."""
    return shutil.copytree(done.state, tmp_path / "state")
