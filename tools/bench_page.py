"""How long the page takes to show a large run, and how far behind a run it is, in a real browser.

python tools/bench_page.py runs/watch --devices 200 --rounds 1000 --json page.json

The run is one that is done; its records are multiplied, in a copy, to as many devices and rounds as are asked for.
Times are the browser's own, from the start of the navigation until the last row is drawn, in a window without any
cache. The delay is from the moment at which a line is written down in the run's state until the page shows it.

With ``--against CHECKOUT`` another version's page is measured too, one window of each in turns, so that the machine's
load is in both.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

from playwright.sync_api import Browser, sync_playwright

from mas_edge.orchestrator.broker.supervisor import free_port

LIMIT_S = 1.0  # to show 200 devices and 1,000 rounds, and behind a run that goes on
PATIENCE_S = 60.0
# What is there when a view is: the last thing that it draws.
VIEWS = {
    "": ".legend button", "fleet": "tbody tr", "affinity": ".ties .node", "costs": ".bars li", "events": ".log li",
}  # fmt: skip
ENGINES = ("torch", "onnxruntime", "executorch", "litert")
REPORTS = 5  # of a round: as many devices as the demo draws
SPACING_S = 2.0  # between rounds


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code: 1 if a view took longer than LIMIT_S."""
    parser = argparse.ArgumentParser(description="Measure how fast the page shows a large run.")
    parser.add_argument("state", type=Path, metavar="RUN", help="the --state of a run that is done")
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--times", type=int, default=5, help="windows that are opened for each view")
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser (default: that of the PATH)")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another version, measured in turns")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        state = shutil.copytree(options.state, Path(name) / "state", ignore=shutil.ignore_patterns("artifacts", "lock"))
        grow(state, options.devices, options.rounds)
        found = measure(state, options.chromium, options.times, options.against)
    found = {"devices": options.devices, "rounds": options.rounds, **found}
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found) + "\n")
    return 0 if all(row["median_s"] <= LIMIT_S for row in [*found["views"].values(), found["delay"]]) else 1


def measure(state: Path, chromium: str, times: int, against: Path | None = None) -> dict[str, Any]:
    """Seconds by view, and the delay of the live log; with ``against``, the views of that checkout in turns."""
    with ExitStack() as stack:
        url = stack.enter_context(_server(state))
        other = stack.enter_context(_server(state, against)) if against else None
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        stack.callback(browser.close)
        urls = [url, *([other] if other else [])]
        taken: dict[tuple[str, str], list[float]] = {}
        for view, sign in VIEWS.items():
            for at in urls:
                _load(browser, at, view, sign)  # the server makes its first answer once
            for _ in range(times):
                for at in urls:
                    taken.setdefault((at, view), []).append(_load(browser, at, view, sign))
        views = {view or "overview": _summary(taken[url, view]) for view in VIEWS}
        if other:
            for view in VIEWS:
                views[view or "overview"] |= {f"against_{k}": v for k, v in _summary(taken[other, view]).items()}
        return {"views": views, "delay": _summary(_delays(browser, url, state, times))}


def table(found: dict[str, Any]) -> str:
    """For people."""
    lines = [f"{found['devices']} devices, {found['rounds']} rounds", "", "view          median s   slowest s"]
    for name, row in [*found["views"].items(), ("behind a run", found["delay"])]:
        line = f"{name:<12} {row['median_s']:9.2f} {row['most_s']:11.2f}"
        if "against_median_s" in row:
            other, most = row["against_median_s"], row["against_most_s"]
            line += f"   the other version: {other:.2f} {most:.2f}; ratio of medians {row['median_s'] / other:.2f}"
        lines.append(line)
    return "\n".join(lines)


# ---------------------------------------------------------------------- a large run


def grow(state: Path, devices: int, rounds: int) -> None:
    """Make a run of so many devices and rounds of the one in ``state``: half of the rounds merged, half in groups."""
    names = [f"pi-{place:04}" for place in range(1, devices + 1)]
    with closing(sqlite3.connect(state / "state.db")) as db, db:
        _grow_devices(db, names)
        found = db.execute("SELECT round_id, spec, phase, opened, record FROM rounds ORDER BY number").fetchall()
        first = found[0][3] - SPACING_S * rounds
        merged = [row for row in found if row[2] == "merge"]
        grouped = [row for row in found if row[2] == "groups"]
        db.execute("DELETE FROM rounds")
        db.execute("DELETE FROM events")
        for place in range(rounds):
            part, index = (
                (merged, place) if place < rounds // 2 else (grouped, rounds // 2 + (place - rounds // 2) // 2)
            )
            _, spec, phase, _, blob = part[place % len(part)]
            record = json.loads(blob)
            name = f"{record['group']}-{index:04}-{place}"
            drawn = [names[(place * REPORTS + each) % devices] for each in range(REPORTS)]
            report = next(iter(record["reports"].values()))
            record |= {"round_id": name, "index": index, "selected": drawn, "reports": dict.fromkeys(drawn, report)}
            opened = first + SPACING_S * place
            values = (place + 1, name, spec, phase, opened, opened + 1, json.dumps(record).encode())
            db.execute("INSERT INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            for text in (f"{name}: train on {', '.join(drawn)}", f"{name}: complete, {REPORTS} of {REPORTS} reports"):
                db.execute("INSERT INTO events (time, level, text) VALUES (?, 'info', ?)", (opened, text))


def _grow_devices(db: sqlite3.Connection, names: list[str]) -> None:
    record = json.loads(db.execute("SELECT record FROM devices LIMIT 1").fetchone()[0])
    db.execute("DELETE FROM devices")
    for place, name in enumerate(names):
        made = record | {"name": name, "engine": ENGINES[place % len(ENGINES)], "online": place % 9 != 0}
        db.execute("INSERT INTO devices VALUES (?, ?)", (name, json.dumps(made).encode()))


# ---------------------------------------------------------------------- the browser


def _load(browser: Browser, url: str, view: str, sign: str) -> float:
    """Seconds from the navigation to the drawn view, in a new window."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        page.add_init_script(
            f"""window.shown = new Promise((done) => {{
              const look = () => document.querySelector({json.dumps(sign)})
                ? requestAnimationFrame(() => setTimeout(() => done(performance.now())))
                : requestAnimationFrame(look);
              addEventListener("DOMContentLoaded", look);
            }});"""
        )
        page.goto(f"{url}#/{view}")
        return float(page.evaluate("window.shown")) / 1000
    finally:
        context.close()


def _delays(browser: Browser, url: str, state: Path, times: int) -> list[float]:
    """Seconds from writing a line into the run's log until the page shows it; both clocks are this machine's."""
    context = browser.new_context()
    found = []
    try:
        page = context.new_page()
        page.goto(f"{url}#/events")
        page.wait_for_selector(".pulse.live")
        page.wait_for_selector(".log li")
        for place in range(times):
            text = f"line {place} of the measurement"
            script = """(text) => new Promise((done) => {
              const look = () => (document.querySelector(".log li:last-child")?.textContent.includes(text)
                ? done(Date.now()) : requestAnimationFrame(look));
              look();
            })"""
            time.sleep(1.1 + 0.37 * place % 1)  # at another place of the server's second each time
            page.evaluate(f"(text) => {{ window.seen = ({script})(text); }}", text)
            with closing(sqlite3.connect(state / "state.db")) as db, db:
                db.execute("INSERT INTO events (time, level, text) VALUES (?, 'info', ?)", (time.time(), text))
            written = time.time()
            found.append(float(page.evaluate("window.seen")) / 1000 - written)
    finally:
        context.close()
    return found


def _summary(taken: list[float]) -> dict[str, float]:
    return {"median_s": statistics.median(taken), "most_s": max(taken)}


@contextmanager
def _server(state: Path, checkout: Path | None = None) -> Iterator[str]:
    """``mas-edge web`` on the state; of another checkout, if one is given."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    command = [sys.executable, "-m", "mas_edge", "web", str(state), "--http", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, cwd=checkout, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                urllib.request.urlopen(f"{url}healthz").close()
                break
            except URLError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    raise SystemExit(main())
