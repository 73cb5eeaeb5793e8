"""Someone who does what a page says, from top to bottom, in a folder that looks like theirs.

A ``sh`` block is run line by line: our two commands for real, ``curl`` as a request, the rest in a shell. ``serve``,
``run`` and ``swarm`` stay in the background, as in terminals of their own, until the page is read or the same command
comes again. A ``python`` block is run too, all of a page as one program. A block with a title is written to that file.
A ``text`` block after one that was run is what its last command printed, with ``...`` for anything. Addresses of the
page become those of the test. A block that its page excuses is only held against what can be typed.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import device_runtime.cli
import mas_edge.cli
from mas_edge.orchestrator import view
from mas_edge.orchestrator.broker.supervisor import free_port
from mas_edge.protocol.errors import EdgeError
from tests.docs.pages import ROOT, Block, blocks
from tests.docs.typed import can_be_typed

SERVER = "192.0.2.7"  # an address that is set aside for documentation (RFC 5737)
PAGE_SERVER = "127.0.0.1:8880"
PATIENCE_S = 200.0
COMMANDS = {"mas-edge": mas_edge, "mas-edge-device": device_runtime}
STAYS = ("serve", "run", "swarm")


class Reader:
    """Reads pages. ``exit_codes`` are those of what has ended by itself, ``interrupted`` those of what Ctrl-C ended.

    Args:
        folder: the working directory, and where logs go.
        broker: the URL that stands for the pages' broker.
        carried: by the name that a page gives a file on another machine, what somebody has carried there.
        engine: what devices that stay train with; they test no other. As the page says without it.
    """

    def __init__(
        self, folder: Path, broker: str = "", carried: dict[str, str] | None = None, engine: str = "auto"
    ) -> None:
        self.folder = folder
        self.done = 0  # blocks
        self.exit_codes: list[int] = []
        self.interrupted: list[int] = []
        self.printed: list[str] = []  # by each command that has ended
        self._carried = carried or {}
        self._engine = engine
        self._names: dict[str, Any] = {"__name__": "page"}
        self._served: Path | None = None
        self._background: dict[str, subprocess.Popen[bytes]] = {}
        self._places = {f"mqtt://{SERVER}:1883": broker, "mqtt://localhost:1883": broker} if broker else {}
        self._places |= {SERVER: "127.0.0.1", PAGE_SERVER: f"127.0.0.1:{free_port()}"}

    def follow(self, page: Path) -> None:
        """Do all of it; raises AssertionError where the page does not tell the truth."""
        printed: str | None = None
        for block in blocks(page):
            where = f"{page.name}:{block.line}"
            if block.title:
                self._write(self.folder / block.title, block.text)
                printed = None
            elif block.language in ("sh", "bash"):
                printed = self._commands(block, where)
            elif block.language == "python":
                printed = self._python(block, where)
            else:
                if block.language == "text" and printed is not None:
                    _compare(block, printed, where)
                printed = None
            self.done += 1

    def close(self) -> None:
        """End what runs in the background, as Ctrl-C does."""
        for line in list(self._background):
            self._interrupt(line)

    def _write(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()  # a module may have been written

    def _python(self, block: Block, where: str) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * block.line + self._here(block.text), where, "exec"), self._names)
        return printed.getvalue()

    def _here(self, text: str) -> str:
        """The text with the addresses of this test."""
        for place, ours in self._places.items():
            text = text.replace(place, ours)
        return text

    def _commands(self, block: Block, where: str) -> str | None:
        printed = None
        for line in block.text.splitlines():
            if block.excuse is not None:
                can_be_typed(line)
            else:
                printed = self._command(self._here(line), where)
                self.printed.append(printed)
        return printed

    def _command(self, line: str, where: str) -> str:
        for name, origin in self._carried.items():
            if name in shlex.split(line):
                shutil.copyfile(self.folder / origin, self.folder / name)
        words = shlex.split(line.removesuffix(" &"))
        if words[0] == "curl":
            return _curl(words[1:])
        if words[0] not in COMMANDS:
            return self._shell(line, where)
        if words[1] in STAYS:
            self._interrupt(line)
            return self._start(line, words)
        if words[1:3] == ["fleet", "init"]:  # the usual ports may be in use
            words += ["--port", str(free_port()), "--enrolment-port", str(free_port())]
        return self._run(words)

    def _run(self, words: list[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                self.exit_codes.append(COMMANDS[words[0]].cli.main(words[1:]))
            except SystemExit as end:  # --help
                self.exit_codes.append(int(end.code or 0))
        return printed.getvalue()

    def _shell(self, line: str, where: str) -> str:
        """In a shell whose commands are those of this environment."""
        environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment["PYTHONPATH"] = str(ROOT)
        if line == ". .venv/bin/activate":  # the one that the tests are in
            return ""
        done = subprocess.run(
            ["bash", "-ec", line], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{where}: {line}: {done.stdout}{done.stderr}"
        return done.stdout

    def _start(self, line: str, words: list[str]) -> str:
        log = self.folder / f"{words[1]}.log"
        environment = {**os.environ, "XDG_STATE_HOME": str(self.folder / "home"), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(ROOT)
        command = [sys.executable, "-m", COMMANDS[words[0]].__name__, *words[1:]]
        if words[1] == "run":
            command += ["--verbose", "--engine", self._engine]  # verbose: it says when it is connected
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=self.folder, env=environment)
        self._background[line] = process
        deadline = time.monotonic() + PATIENCE_S
        while process.poll() is None and not self._is_up(words, log.read_text()):
            assert time.monotonic() < deadline, f"{line}: {log.read_text()}"
            ended = [
                other for other, running in self._background.items() if other != line and running.poll() is not None
            ]
            assert not ended, f"{ended} ended by itself; its log is in {self.folder}"
            time.sleep(0.1)
        if process.poll() is not None:
            self.exit_codes.append(self._background.pop(line).returncode)
        return log.read_text()

    def _is_up(self, words: list[str], log: str) -> bool:
        """An orchestrator that waits for devices, or a device that the orchestrator (or a broker) knows."""
        if words[1] == "serve":
            self._served = self.folder / words[words.index("--state") + 1]
        if self._served is None:
            return "connected to" in log
        try:
            run = view.read(self._served)
        except EdgeError:
            return False
        online = sum(device.online for device in run.devices)
        if words[1] == "swarm":
            return online >= int(words[words.index("--devices") + 1])
        if words[1] == "run":
            return online > 0
        if run.phase == "done":  # it ends, unless it was asked to stay
            return "--stay" in words and "connected to" in log
        return run.phase == "initial_evaluation" and "waiting for devices" in log

    def _interrupt(self, line: str) -> None:
        if process := self._background.pop(line, None):
            process.send_signal(signal.SIGINT)
            self.interrupted.append(process.wait(PATIENCE_S))


def _curl(words: list[str]) -> str:
    """What the address answers; not every machine has curl."""
    headers: list[str] = []
    method, data, address = "GET", None, ""
    left = iter(words)
    for word in left:
        if word == "-X":
            method = next(left)
        elif word == "-H":
            headers.append(next(left))
        elif word == "-d":
            data = next(left).encode()
        else:
            address = word
    pairs = dict(header.split(": ", 1) for header in headers)
    request = urllib.request.Request(address, data, pairs, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        found: bytes = answer.read()
    return found.decode()


def _compare(block: Block, printed: str, where: str) -> None:
    fits = doctest.OutputChecker().check_output(block.text, printed, doctest.ELLIPSIS)
    assert fits, f"{where} shows\n{block.text}\nbut what was printed is\n{printed}"
