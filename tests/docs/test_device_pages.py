"""The pages of boards: that of plain Linux is done from top to bottom, the commands of the others can be typed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import device_runtime.cli
from device_runtime import service
from mas_edge.fleet.endpoint import Endpoint
from mas_edge.fleet.enrolment import Enrolment
from mas_edge.fleet.folder import Fleet
from mas_edge.fleet.settings import FleetSettings
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.orchestrator.broker.supervisor import free_port
from mas_edge.protocol.enrolment import write_token
from tests.device_runtime.tiny_job import tiny_data
from tests.docs.pages import ROOT, Block, blocks, in_ticks, prose, rows
from tests.docs.typed import PROJECT, WHEEL
from tests.inbox import until

FOLDER = ROOT / "docs" / "devices"
PAGES = sorted(FOLDER.glob("*.md"))
LINUX = FOLDER / "linux.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_in_the_text_of_a_page_can_be_typed(page: Path) -> None:
    for text in in_ticks(prose(page)):
        words = shlex.split(text.removeprefix("sudo "))
        if len(words) > 2 and Path(words[0]).name == "mas-edge-device":
            device_runtime.cli.build_parser().parse_args(words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_installs_the_wheel_of_this_version_with_extras_that_there_are(page: Path) -> None:
    for name, extras in re.findall(r"(mas_edge-[\w.-]+\.whl)(?:\[([\w,-]+)\])?", page.read_text()):
        assert name == WHEEL
        assert set(filter(None, extras.split(","))) <= PROJECT["optional-dependencies"].keys()


def test_the_index_names_every_page() -> None:
    index = FOLDER / "README.md"
    named = {re.search(r"\((.+?)\)", row[1]).group(1) for row in rows(index.read_text())}  # type: ignore[union-attr]
    assert named == {page.name for page in PAGES} - {"README.md"}


def test_the_policy_of_the_phones_page_can_be_read(tmp_path: Path) -> None:
    from device_runtime.policy.file import read_policy

    (block,) = (block for block in blocks(FOLDER / "termux.md") if block.title)
    (tmp_path / "policy.toml").write_text(block.text)
    assert read_policy(tmp_path / "policy.toml").rules.charging


# ---------------------------------------------------------------- plain Linux, for real


def installed(names: list[str]) -> set[str]:
    """These distributions and all that they need here."""
    found: set[str] = set()
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            needs = [Requirement(text) for text in distribution(name).requires or ()]
            names += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the wheel, data, and beside the index of packages a place that has what it would bring."""
    home = tmp_path_factory.mktemp("home")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(home), str(ROOT)]
    made = subprocess.run(build, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    tiny_data(home / "recordings", train=4, test=1)
    (home / "packages").mkdir()
    extras = PROJECT["optional-dependencies"]
    wanted = [Requirement(text) for text in [*PROJECT["dependencies"], *extras["onnx"], *extras["secure"]]]
    for name in installed([each.name for each in wanted if each.marker is None or each.marker.evaluate()]):
        for top in {Path(str(file)).parts[0] for file in distribution(name).files or ()} - {"..", "__pycache__"}:
            (home / "packages" / top).symlink_to(str(distribution(name).locate_file(top)))
    return home


@pytest.fixture(scope="module")
def fleet(home: Path, mosquitto_is_here: None) -> Iterator[Fleet]:
    """The server that every page assumes."""
    members = Fleet.create(home / "members", FleetSettings("home", ["127.0.0.1"], free_port(), free_port()))
    (home / "token.txt").write_text(write_token(Enrolment(members).invite("pc-desk")) + "\n")
    with (
        Endpoint(members, "127.0.0.1"),
        ManagedBroker(home / "server", port=members.settings.port, fleet=members),
    ):
        yield members


class Reader:
    """Does what the page says in a shell of that home; systemd only notes what it is told."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self._patch = monkeypatch
        self._environment = {
            "HOME": str(home), "PATH": f"{home / 'bin'}:/usr/bin:/bin", "PIP_NO_DEPS": "1", "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(home / "packages"), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1",
        }  # fmt: skip
        (home / "bin").mkdir()
        (home / "bin" / "python3").symlink_to(sys.executable)
        for name in ("systemctl", "loginctl"):
            (home / "bin" / name).write_text(f'#!/bin/sh\necho "{name} $*" >> "{home}/told"\n')
            (home / "bin" / name).chmod(0o755)

    def follow(self, page: Path) -> Iterator[str]:
        """What each command printed."""
        for block in blocks(page):
            for line in block.text.splitlines():
                yield self._do(block, line)

    def _do(self, block: Block, line: str) -> str:
        words = shlex.split(line)
        if words[:2] == ["mas-edge-device", "run"]:
            return self._run(line)
        if words[:1] == ["mas-edge-device"] and words[1] in ("install", "uninstall"):
            return self._manage([word.replace("~", str(self.home)) for word in words[1:]])
        done = self._shell(line)
        assert done.returncode == 0, f"{LINUX.name}:{block.line}: {line}: {done.stdout}{done.stderr}"
        return done.stdout

    def _shell(self, line: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-c", self._active(line)]
        return subprocess.run(
            command, cwd=self.home, env=self._environment, capture_output=True, text=True, check=False
        )  # fmt: skip

    def _active(self, line: str) -> str:
        ready = (self.home / "mas-edge" / "bin" / "activate").exists()
        return f". ~/mas-edge/bin/activate\n{line}" if ready else line

    def _run(self, line: str) -> str:
        log = self.home / "run.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-c", self._active(f"exec {line}")], cwd=self.home, env=self._environment, stdout=output,
                stderr=output,
            )  # fmt: skip
        try:
            until(lambda: "connected to mqtts://" in log.read_text() or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            process.kill()
        return log.read_text()

    def _manage(self, words: list[str]) -> str:
        """No systemd runs here that could be told; the files and the commands are those of one that does."""
        host = service.Host("systemd-user", self.home, root=self.home)
        self._patch.setattr(service.Host, "here", lambda: host)
        self._patch.setenv("PATH", f"{self.home / 'bin'}:{os.environ['PATH']}")
        assert device_runtime.cli.main(words) == 0
        return ""


@pytest.mark.mosquitto
@pytest.mark.usefixtures("fleet")
def test_plain_linux_from_the_wheel_to_the_service_and_back(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(home, monkeypatch)
    printed: dict[str, list[str]] = {}
    unit = home / ".config" / "systemd" / "user" / "mas-edge-pc-desk.service"
    lines = [line for block in blocks(LINUX) for line in block.text.splitlines()]
    for line, said in zip(lines, reader.follow(LINUX), strict=True):
        printed.setdefault(" ".join(line.split()[:2]), []).append(said)
        if line.startswith("mas-edge-device install"):
            assert "run --name pc-desk" in unit.read_text()
    first, second = printed["mas-edge-device doctor"]
    assert first.endswith("This device can train; --engine auto takes onnxruntime.\n")
    assert "pc-desk in fleet home, its certificate is good until" in second
    assert "lets us in, after" in second
    assert "service         installed (systemd-user)" in second
    assert "is in fleet home; start it: mas-edge-device run --name pc-desk" in printed["mas-edge-device join"][0]
    assert "is fine" in printed["mas-edge-device check"][0]
    assert not unit.exists()
    told = (home / "told").read_text()
    assert "systemctl --user enable --now mas-edge-pc-desk.service" in told
    assert "systemctl --user disable --now mas-edge-pc-desk.service" in told
    engines = json.loads((home / ".local/state/mas-edge/pc-desk/engines.json").read_text())
    assert "onnxruntime" in json.dumps(engines)
