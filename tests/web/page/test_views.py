"""What the views show of a job that is done, and how they are operated: by mouse, by keyboard, on a phone."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from mas_edge.mas.affinity import AffinityMatrix
from mas_edge.mas.split import value_of
from tests.web.page.site import PHONE, WIDE, Site, opened, serving

pytestmark = pytest.mark.e2e

VIEWS = ("", "fleet", "fleet/ada", "affinity", "costs", "rollout", "events", "rounds/merged-0000")
AUDIT = "() =>" + (Path(__file__).parent / "audit.js").read_text().partition("() =>")[2]  # without its comment


def shown(page: Page, site: Site, view: str) -> None:
    """Open a view and wait until its data are there."""
    page.goto(f"{site.url}#/{view}")
    expect(page.get_by_text("Reading")).to_have_count(0)
    expect(page.locator("h1")).to_be_visible()


def matrix_of(page: Page, tasks: list[str]) -> list[list[str]]:
    """The numbers in the cells of the heat map, in the order of the job's tasks."""
    names = page.locator(".heat thead th").all_inner_texts()
    rows = page.evaluate(
        "[...document.querySelectorAll('.heat tbody tr')].map((r) => [...r.cells].map((c) => c.textContent.trim()))"
    )
    cells = {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}
    return [[cells[source][recipient] for recipient in tasks] for source in tasks]


def rounded(matrix: list[list[float]]) -> list[list[str]]:
    """The same as text, with a sign and two decimals."""
    texts = [[f"{value:+.2f}".replace("-", "−") for value in row] for row in matrix]
    return [["0.00" if text[1:] == "0.00" else text for text in row] for row in texts]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["desktop", "phone"])
def test_each_view_fits_its_window_is_readable_and_has_names_for_everything(
    done: Site, browser: Browser, theme: Any, size: Any
) -> None:
    with opened(browser, viewport=size, color_scheme=theme) as page:
        for view in VIEWS:
            shown(page, done, view)
            root = "document.documentElement"
            assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") <= 0, f"{view} scrolls sideways"
            audit = page.evaluate(AUDIT)
            assert audit["seen"] >= 12, view
            assert (audit["poor"], audit["nameless"]) == ([], []), view


def test_what_is_asked_for_before_the_page_is_there_is_what_its_view_needs(done: Site, page: Page) -> None:
    for view in VIEWS:
        shown(page, done, view)
        page.reload()
        expect(page.get_by_text("Reading")).to_have_count(0)
        expect(page.locator("h1")).to_be_visible()
        assert page.evaluate("[...begun.keys()]") == [], view


# Preact runs effects after a frame has been painted, or after a timer: on a busy machine that may take long. The page
# draws itself after 300 ms, then hears what comes, and begins to listen last.
BUSY = """
window.requestAnimationFrame = () => 0;
const timer = window.setTimeout, get = window.fetch;
window.setTimeout = (work, ms, ...rest) => timer(work, (ms ?? 0) > 100 ? ms : 2000, ...rest);
window.fetch = async (...asked) => {
  const answer = await get(...asked);
  if (String(asked[0]).startsWith("/api/rounds")) await new Promise((done) => timer(done, 900));
  return answer;
};
"""


def test_an_answer_between_drawing_and_listening_is_not_missed(done: Site, page: Page) -> None:
    page.add_init_script(BUSY)
    page.goto(done.url)
    expect(page.get_by_text("Reading")).to_be_visible()
    expect(page.get_by_text("Reading")).to_have_count(0, timeout=20_000)


def test_the_theme_can_be_chosen_and_is_remembered(done: Site, browser: Browser) -> None:
    with opened(browser, color_scheme="light") as page:
        shown(page, done, "")
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)
        for label in ("Colours follow the system", "Light colours"):
            page.get_by_role("button", name=label).click()
        assert page.evaluate(ground) != light
        page.reload()
        expect(page.get_by_role("button", name="Dark colours")).to_be_visible()
        assert page.evaluate(ground) != light


def test_every_way_can_be_gone_by_keyboard_with_a_focus_that_shows(done: Site, page: Page) -> None:
    shown(page, done, "")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    visited = []
    for _ in range(8):  # the name, the theme, and six views
        page.keyboard.press("Tab")
        visited.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.ariaLabel"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert [name for name in visited if name in ("Overview", "Fleet", "Affinity", "Costs", "Rollout", "Events")] == [
        "Overview", "Fleet", "Affinity", "Costs", "Rollout", "Events",
    ]  # fmt: skip
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_be_focused()  # a screen reader says where one has come to


def test_the_slider_walks_through_the_rounds_and_the_cells_hold_their_numbers(done: Site, page: Page) -> None:
    shown(page, done, "affinity")
    affinity = done.get("api/affinity")
    assert len(affinity["rounds"]) == 2
    assert matrix_of(page, affinity["tasks"]) == rounded(affinity["average"]["matrix"])
    slider = page.get_by_label("Round", exact=True)
    slider.focus()
    slider.press("ArrowLeft")
    expect(page.locator(".slider output")).to_have_text("Round 1")
    assert matrix_of(page, affinity["tasks"]) == rounded(affinity["rounds"][0]["matrix"])
    slider.press("ArrowRight")
    expect(page.locator(".slider output")).to_have_text("Round 2")
    assert matrix_of(page, affinity["tasks"]) == rounded(affinity["rounds"][1]["matrix"])
    page.get_by_role("button", name="Mean", exact=True).click()
    assert matrix_of(page, affinity["tasks"]) == rounded(affinity["average"]["matrix"])


def test_small_affinities_are_shown_in_a_unit_in_which_they_can_be_read(done: Site, page: Page) -> None:
    affinity = done.get("api/affinity")
    matrix = affinity["average"]["matrix"]
    reach = max(abs(value) for i, row in enumerate(matrix) for j, value in enumerate(row) if i != j)
    small = [[2.5e-5 / reach * value for value in row] for row in matrix]  # as at the features
    affinity["average"]["matrix"] = affinity["rounds"][0]["matrix"] = affinity["rounds"][1]["matrix"] = small
    page.route("**/api/affinity", lambda route: route.fulfill(json=affinity))
    shown(page, done, "affinity")
    expect(page.get_by_text("in units of 10⁻⁵", exact=False).first).to_be_visible()
    assert matrix_of(page, affinity["tasks"]) == rounded([[1e5 * value for value in row] for row in small])


def test_the_matrix_is_walked_by_arrow_keys_and_said_in_words(done: Site, page: Page) -> None:
    shown(page, done, "affinity")
    page.locator(".heat td[tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    focused = page.evaluate("document.activeElement.dataset.at")
    assert focused == "2,1"
    row, column = (page.locator(".heat tbody tr").nth(2).locator("th"), page.locator(".heat thead th").nth(1))
    told = page.locator(".beside [role='status']")
    expect(told).to_contain_text(f"A step on {row.inner_text()}")
    expect(told).to_contain_text(column.inner_text())


def test_the_colour_of_a_pair_is_that_of_its_sign(done: Site, page: Page) -> None:
    shown(page, done, "affinity")
    cells = page.evaluate("""() => [...document.querySelectorAll('.heat td[data-at]:not(.self)')].map((td) => {
      const [r, g, b] = getComputedStyle(td).backgroundColor.match(/\\d+/g).map(Number);
      return [Number(td.textContent.replace('−', '-')), b - r];
    })""")
    assert len(cells) == 6
    assert all(blue > 0 if value > 0.01 else blue < 0 if value < -0.01 else True for value, blue in cells)


def test_the_picture_of_the_split_shows_its_groups_and_what_each_task_gets(done: Site, page: Page) -> None:
    shown(page, done, "affinity")
    split = done.get("api/split")
    cards = page.locator("section.group")
    expect(cards).to_have_count(len(split["groups"]))
    for place, group in enumerate(split["groups"]):
        assert cards.nth(place).locator(".member > .row .chip").all_inner_texts() == group
    expect(page.locator(".ties .hull")).to_have_count(len(split["groups"]))
    expect(page.locator(".ties .node")).to_have_count(len(split["tasks"]))
    lines = page.locator(".ties path[stroke]").evaluate_all("""paths => paths.map((path) => [
        path.getAttribute("stroke"), Number(path.getAttribute("stroke-width")),
        (path.getAttribute("stroke-dasharray") ?? "").split(" ").map(Number)])""")
    assert lines
    for colour, width, dash in lines:  # round ends fill as much of a gap as the line is wide
        assert dash[1] - width > 4 if colour == "var(--hurts)" else dash == [0]
    chosen = page.get_by_role("row", name="chosen")
    expect(chosen).to_contain_text(f"{abs(split['value']):.3f}")


def answered(body: str, route: Route) -> None:
    """Instead of the server."""
    route.fulfill(body=body, content_type="application/json")


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("names", [(), ("wide", "WWWWWWWWWWWW", "m" * 40)])
def test_no_name_in_the_picture_of_the_split_is_cut_at_its_edge(
    done: Site, page: Page, width: int, names: tuple[str, ...]
) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    if names:  # other tasks
        for path in ("affinity", "split"):
            told = done.get(f"api/{path}")
            renamed = json.dumps(told)
            for old, new in zip(told["tasks"], names, strict=True):
                renamed = renamed.replace(f'"{old}"', f'"{new}"')
            page.route(f"**/api/{path}", partial(answered, renamed))
    shown(page, done, "affinity")
    box = page.locator(".ties").bounding_box()
    assert box is not None
    texts = page.locator(".ties text").all()
    assert len(texts) == len(done.get("api/split")["tasks"])
    for text in texts:
        found = text.bounding_box()
        assert found is not None
        assert box["x"] <= found["x"] < found["x"] + found["width"] <= box["x"] + box["width"], text.inner_text()


def test_the_page_computes_the_value_of_a_split_as_the_server_does(done: Site, page: Page) -> None:
    shown(page, done, "")
    rng = np.random.default_rng(5)
    tasks = tuple("abcdef")
    for groups in (
        [[0, 1], [2, 3, 4, 5]],
        [[0], [1, 2], [3, 4, 5]],
        [[0, 1, 2, 3, 4, 5]],
        [[0], [1], [2], [3], [4], [5]],
    ):
        values = rng.normal(size=(6, 6))
        script = "async ([S, groups]) => (await import('./js/grouping.js')).valueOf(S, groups)"
        found = page.evaluate(script, [values.tolist(), groups])
        named = [[tasks[i] for i in group] for group in groups]
        assert found == pytest.approx(value_of(AffinityMatrix(tasks, values), named), rel=1e-12)


def test_devices_are_filtered_sorted_and_opened(done: Site, page: Page) -> None:
    shown(page, done, "fleet")
    names = page.locator("tbody tr td:first-child")
    assert names.all_inner_texts() == ["ada", "bob", "eve"]
    page.get_by_role("button", name="Device").click()
    assert names.all_inner_texts() == ["eve", "bob", "ada"]
    page.get_by_role("searchbox").fill("bo")
    assert names.all_inner_texts() == ["bob"]
    page.get_by_role("searchbox").fill("nobody is called so")
    page.get_by_role("button", name="Show all").click()
    expect(names).to_have_count(3)
    page.get_by_role("link", name="bob").click()
    expect(page.locator("h1")).to_have_text("bob")


def test_what_a_device_says_is_shown_as_text_and_never_run_and_its_battery_and_heat_with_units(
    copy: Path, lenient: Page
) -> None:
    page = lenient  # its server ends first
    evil = '<img src=x onerror="window.harmed=1"><script>window.harmed=1</script>'
    with closing(sqlite3.connect(copy / "state.db")) as db, db:
        record = json.loads(db.execute("SELECT record FROM devices WHERE name = 'ada'").fetchone()[0])
        record |= {"problem": evil, "machine": evil, "engine": evil}
        db.execute("UPDATE devices SET record = ? WHERE name = 'ada'", (json.dumps(record).encode(),))
        db.execute("INSERT INTO events (time, level, text) VALUES (1, 'error', ?)", (evil,))
        number, blob = db.execute("SELECT number, record FROM rounds ORDER BY number DESC LIMIT 1").fetchone()
        last = json.loads(blob)
        last["reports"]["bob"]["board"] = {"battery_percent": 76, "plugged": True, "temperature_c": 48.72}
        db.execute("UPDATE rounds SET record = ? WHERE number = ?", (json.dumps(last).encode(), number))
    with serving(copy) as site:
        for view in ("fleet", "fleet/ada", "events"):
            shown(page, site, view)
            expect(page.get_by_text(evil).first).to_be_visible()
            assert page.locator("main img, main script").count() == 0
            assert page.evaluate("window.harmed") is None
        page.get_by_label("Least level").select_option("error")
        expect(page.locator(".log time")).to_have_count(1)
        shown(page, site, "fleet")
        expect(page.get_by_role("row", name="bob")).to_contain_text("76 %, plugged in")
        expect(page.get_by_role("row", name="bob")).to_contain_text("48.7 °C")


def test_energy_and_bytes_are_those_of_the_api(done: Site, page: Page) -> None:
    shown(page, done, "costs")
    traffic = done.get("api/traffic")
    expect(page.get_by_role("heading", name="Bytes by phase")).to_be_visible()
    bars = page.locator("section", has=page.get_by_role("heading", name="Bytes by phase")).locator(".bars > li")
    expect(bars).to_have_count(sum(each["sent_bytes"] + each["received_bytes"] > 0 for each in traffic["phases"]))
    expect(page.locator("dd.figure").filter(has_text="B").first).to_contain_text(
        f"{traffic['sent_bytes'] / 1000:.3g}"[:3]
    )
