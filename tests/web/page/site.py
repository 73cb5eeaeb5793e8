"""The page as people have it: a real server process on a run's state directory, and pages of a real browser."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from mas_edge.orchestrator.broker.supervisor import free_port
from tests.e2e.fleet import until

expect.set_options(timeout=60_000)  # ms: this machine may have other work
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}  # the narrowest phones that are sold
# What a browser itself says where a server has ended or refused, as only some tests want it: not a word of the page.
_NETWORK = ("Failed to load resource", "net::ERR_")


class Site:
    """``mas-edge web`` on a state directory; ``stop`` and ``start`` as often as a test wants, on the same port."""

    def __init__(self, state: Path, *options: str) -> None:
        self.state = state
        self._options = options
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        where = ["--http", f"127.0.0.1:{self.port}", *self._options]
        command = [sys.executable, "-m", "mas_edge", "web", str(self.state), *where]
        with (self.state.parent / "web.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._is_up, f"{self.url} to answer; its log is {self.state.parent / 'web.log'}")

    def stop(self) -> None:
        """End it as a person does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()
            self._process = None

    def get(self, path: str) -> Any:
        """What the API says."""
        with urllib.request.urlopen(f"{self.url}{path}") as answer:
            return json.load(answer)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """What the API says to an order."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def _is_up(self) -> bool:
        assert self._process is None or self._process.poll() is None, f"the page's server has ended: {self.state}"
        try:
            urllib.request.urlopen(self.url).close()  # the page itself, which needs no token
        except URLError:
            return False
        return True


@contextmanager
def serving(state: Path, *options: str) -> Iterator[Site]:
    """A server for the length of a block."""
    site = Site(state, *options)
    try:
        site.start()
        yield site
    finally:
        site.stop()


@contextmanager
def opened(browser: Browser, *, refused: bool = False, **options: Any) -> Iterator[Page]:
    """A page in a window of its own, that has to do without one error in its console.

    ``refused``: the test has the server end, or say no, and the browser may say so.
    """
    options.setdefault("viewport", WIDE)
    context = browser.new_context(**options)
    context.set_default_timeout(20_000)  # ms: a loaded machine draws slowly
    page = context.new_page()
    wrong: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not (refused and any(each in message.text for each in _NETWORK)):
            wrong.append(f"{message.text} {message.location['url']}")

    page.on("console", on_console)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    try:
        yield page
    finally:
        context.close()
    assert wrong == [], "the page's console is not empty"
