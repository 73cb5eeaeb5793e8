"""Someone who does what a page says, from top to bottom, in a folder that looks like a clone.

A ``sh`` block is run line by line: our two commands for real, others only checked for what they name. ``serve`` and
``run`` stay in the background, as in terminals of their own, until the page is read or the same command comes again. A
``python`` block is run too. A block with a title is written to that file. A ``text`` block after one that was run is
what its last command printed, with ``...`` for anything. The broker's address of the page becomes the test broker's.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import tomllib

import device_runtime.cli
import mas_edge.cli
from mas_edge.orchestrator import view
from mas_edge.protocol.errors import EdgeError
from tests.docs.pages import ROOT, Block, blocks

BROKER = "mqtt://192.0.2.7:1883"  # an address that is set aside for documentation (RFC 5737)
PATIENCE_S = 200.0
COMMANDS = {"mas-edge": mas_edge, "mas-edge-device": device_runtime}


class Reader:
    """Reads one page. ``exit_codes`` are those of everything that was run and has ended."""

    def __init__(self, folder: Path, broker: str) -> None:
        self.folder = folder
        self.exit_codes: list[int] = []
        self._broker = broker
        self._background: dict[str, subprocess.Popen[bytes]] = {}

    def follow(self, page: Path) -> None:
        """Do all of it; raises AssertionError where the page does not tell the truth."""
        printed: str | None = None
        for block in blocks(page):
            if block.title:
                (self.folder / block.title).write_text(block.text, encoding="utf-8")
            elif block.language == "sh":
                for line in block.text.splitlines():
                    printed = self._command(line.replace(BROKER, self._broker))
                continue
            elif block.language == "python":
                printed = self._python(block, page)
                continue
            elif block.language == "text" and printed is not None:
                _compare(block, printed, page)
            printed = None

    def close(self) -> None:
        """End what runs in the background, as Ctrl-C does."""
        for line in list(self._background):
            self._interrupt(line)

    def _python(self, block: Block, page: Path) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.text.replace(BROKER, self._broker), f"{page.name}:{block.line}", "exec"), {})
        return printed.getvalue()

    def _command(self, line: str) -> str | None:
        words = shlex.split(line)
        if words[0] == "make":
            assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(), line
        elif words[0] == "pip":
            check_extras(words[-1])
        elif words[0] in COMMANDS and "demo-out" in line:  # there has been no demo here
            COMMANDS[words[0]].cli.build_parser().parse_args(words[1:])
        elif words[0] in COMMANDS:
            return self._run(line, words)
        else:
            assert line == ". .venv/bin/activate", f"nobody knows how to run {line!r}"
        return None

    def _run(self, line: str, words: list[str]) -> str:
        package = COMMANDS[words[0]]
        if words[1] in ("serve", "run"):
            self._interrupt(line)
            return self._start(line, [sys.executable, "-m", package.__name__, *words[1:]], words)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                self.exit_codes.append(package.cli.main(words[1:]))
            except SystemExit as end:  # --help
                self.exit_codes.append(int(end.code or 0))
        return printed.getvalue()

    def _start(self, line: str, command: list[str], words: list[str]) -> str:
        log = self.folder / f"{words[1]}.log"
        environment = {**os.environ, "XDG_STATE_HOME": str(self.folder / "home"), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(ROOT)
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
        """An orchestrator that waits for devices, or a device that the orchestrator knows."""
        try:
            run = view.read(self._state(words))
        except EdgeError:
            return False
        if words[1] == "serve":
            return run.phase == "initial_evaluation" and "waiting for devices" in log
        return any(device.online for device in run.devices)

    def _state(self, words: list[str]) -> Path:
        if words[1] == "serve":
            self._served = self.folder / words[words.index("--state") + 1]
        return self._served

    def _interrupt(self, line: str) -> None:
        if process := self._background.pop(line, None):
            process.send_signal(signal.SIGINT)
            self.exit_codes.append(process.wait(PATIENCE_S))


def check_extras(requirement: str) -> None:
    """``.[a,b]`` names extras that exist."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert requirement.startswith(".[")
    assert set(requirement[2:-1].split(",")) <= known.keys(), requirement


def _compare(block: Block, printed: str, page: Path) -> None:
    fits = doctest.OutputChecker().check_output(block.text, printed, doctest.ELLIPSIS)
    assert fits, f"{page.name}:{block.line} shows\n{block.text}\nbut what was printed is\n{printed}"
