"""What operators do on the page: the orchestrator's desks and the fleet's rules obey, and it is on disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

import pytest
from playwright.sync_api import Locator, Page, expect

from device_runtime import keys
from mas_edge.fleet.enrolment import Enrolment, WaitsError
from mas_edge.fleet.folder import Fleet
from mas_edge.orchestrator.orders import OrderStore
from mas_edge.orchestrator.rollout_store import RolloutStore
from mas_edge.protocol.enrolment import JoinRequest
from tests.e2e.fleet import snapshot, until
from tests.fleet.members import Clock, make_fleet
from tests.orchestrator.small_desk import SmallDesk
from tests.web.conftest import Run
from tests.web.page.site import Site, serving
from tests.web.page.test_views import shown

pytestmark = pytest.mark.e2e

VIEWS = ("", "fleet", "affinity", "costs", "rollout", "events")


@pytest.fixture(scope="module")
def young(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The page on a run of which nothing but the job is known yet, and to which no fleet belongs."""
    state = tmp_path_factory.mktemp("young") / "state"
    SmallDesk(state).close()
    with serving(state) as site:
        yield site


def test_no_view_has_an_error_in_its_console_before_anything_has_happened(young: Site, page: Page) -> None:
    for view in VIEWS:
        shown(page, young, view)
        expect(page.locator(".empty strong").first).to_be_visible()
    shown(page, young, "")
    expect(page.get_by_text("Since its start", exact=True)).to_be_visible()  # nobody serves it: it does not run
    expect(page.get_by_text("The job waits for mas-edge serve.")).to_be_visible()


def test_no_view_of_a_running_job_has_an_error_in_its_console_and_the_job_ends_when_that_was_confirmed(
    young: Site, page: Page
) -> None:
    with closing(Run(young.state)) as run, closing(OrderStore(young.state)) as orders:
        run.play("merged-0000")
        run.turn(1.0)  # the next one is opened
        for view in ("fleet/pi-1", "rounds/merged-0000", "rounds/merged-0001", *VIEWS, ""):
            shown(page, young, view)
        expect(page.get_by_role("link", name="merged-0001").first).to_be_visible()
        abort = page.get_by_role("button", name="Abort …")
        refuse_then_confirm(page, abort, "Abort the job")
        until(lambda: len(orders.waiting()) == 1, "the order on disk")
        run.look()
        found = snapshot(young.state)
        assert found is not None
        assert (orders.mode, found.phase, found.open_rounds) == ("aborted", "aborted", [])
        expect(page.get_by_text("Aborted", exact=True)).to_be_visible()
        expect(page.locator(".phases .bad")).to_have_text("Merge and measure affinity, aborted")
        expect(abort).to_be_hidden()
        expect(page.locator("h1")).to_be_focused()  # the button that had the focus is gone
        shown(page, young, "affinity")
        expect(page.get_by_text("It was not decided", exact=True)).to_be_visible()
        shown(page, young, "rollout")
        expect(page.get_by_text("There are no models to roll out", exact=True)).to_be_visible()


# ---------------------------------------------------------------------- a rollout, and the fleet


@dataclass
class Place:
    """A run whose models are ready, with the fleet that belongs to it, and the page on both.

    ``rollouts``: what is on disk of them, as another process reads it.
    """

    run: Run
    fleet: Fleet
    site: Site
    rollouts: RolloutStore


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for this module."""
    folder = tmp_path_factory.mktemp("steer")
    with ExitStack() as stack:
        run = stack.enter_context(closing(Run(folder / "state")))
        for number in range(2):
            run.play(f"merged-{number:04}")
        run.split()
        run.deploy()
        fleet = stack.enter_context(closing(make_fleet(folder / "fleet", Clock(time.time()))))
        rollouts = stack.enter_context(closing(RolloutStore(run.directory)))
        site = stack.enter_context(serving(run.directory, "--fleet", str(fleet.folder)))
        yield Place(run, fleet, site, rollouts)


def refuse_then_confirm(page: Page, button: Locator, yes: str) -> None:
    """Press a button that asks first, see that the harmless answer is the one at hand, and say yes."""
    button.click()
    asked = page.get_by_role("dialog")
    expect(asked.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(asked).to_be_hidden()
    button.click()
    asked.get_by_role("button", name=yes, exact=True).click()


def test_a_rollout_is_begun_paused_resumed_aborted_and_rolled_back(place: Place, page: Page) -> None:
    def obeys(mode: str) -> None:
        until(lambda: len(place.rollouts.wishes()) == 1, "the order on disk")
        place.run.look()
        found = place.rollouts.latest()
        assert found is not None
        assert found.state.mode == mode
        expect(page.locator(".head .badge")).to_have_text(mode.replace("_", " "))

    page.goto(f"{place.site.url}#/rollout")
    page.get_by_label("Stages, in % of the devices").fill("50, 100")
    refuse_then_confirm(page, page.get_by_role("button", name="Begin …"), "Begin")
    obeys("running")
    page.get_by_role("button", name="Pause").click()
    obeys("paused")
    page.get_by_role("button", name="Resume").click()
    obeys("running")
    refuse_then_confirm(page, page.get_by_role("button", name="Abort …"), "Abort the rollout")
    obeys("aborted")
    refuse_then_confirm(page, page.get_by_role("button", name="Roll back …"), "Roll back")
    obeys("rolled_back")
    found = place.rollouts.latest()
    assert found is not None
    assert found.state.spec.shares == [0.5, 1.0]


def test_a_device_is_let_in_by_the_key_that_it_shows_and_later_revoked(place: Place, lenient: Page) -> None:
    page, enrolment = lenient, Enrolment(place.fleet)

    def state() -> str:
        return {member.name: str(member.state) for member in enrolment.members()}["pi-1"]

    page.goto(f"{place.site.url}#/fleet")
    invitation = enrolment.invite("pi-1", hold=True)
    request = JoinRequest("pi-1", invitation.secret.hex(), keys.signing_request(keys.new_key()))
    with pytest.raises(WaitsError):
        enrolment.join(request)
    field = page.get_by_label("Key that pi-1 shows")  # it appears by itself
    approve = page.get_by_role("button", name="Approve")
    field.fill("0123")
    expect(approve).to_be_disabled()
    field.fill("0" * 16)
    approve.click()
    expect(page.get_by_role("status").filter(has_text="somebody else uses its token")).to_be_visible()
    assert state() == "waiting"
    [waiting] = [member for member in enrolment.members() if member.name == "pi-1"]
    field.fill(" ".join(waiting.key[at : at + 4] for at in range(0, 20, 4)))  # as devices show it
    approve.click()
    expect(field).to_have_count(0)
    assert state() == "invited"
    enrolment.join(request)
    page.get_by_role("link", name="pi-1").click()
    before = place.fleet.file("crl.pem").read_bytes()
    refuse_then_confirm(page, page.get_by_role("button", name="Revoke …"), "Revoke")
    expect(page.locator(".head .badge").filter(has_text="revoked")).to_be_visible()
    assert state() == "revoked"
    assert place.fleet.file("crl.pem").read_bytes() != before, "what serves the fleet acts on this file"
