"""The pages of those who operate a fleet, done from top to bottom: what is printed, what is left, how it ends."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_runtime import service
from device_runtime.cli import INTERRUPTED
from device_runtime.edge.mqtt import Arrived
from mas_edge.fleet.signing.repository import Repository
from mas_edge.orchestrator.broker import EmbeddedBroker, ManagedBroker
from mas_edge.protocol.topics import Topics
from tests.conftest import Connect
from tests.docs.pages import ROOT, blocks
from tests.docs.reader import Reader
from tests.docs.workshop import begin_anew, make_workshop
from tests.micro.board import Board, configure, needs_micropython

GUIDES = ROOT / "docs" / "guides"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
BOARD = ROOT / "docs" / "devices" / "microboard.md"
# Where a page speaks of a run that is done. Elsewhere it begins one.
OF_A_FINISHED_RUN = ("report", "rollout", "terminal")
# What somebody carries to the device by hand.
CARRIED = {"1.root.json": "signing/metadata/1.root.json"}

ENGINE = "onnxruntime"  # of the workshop's jobs

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, embedded_broker: EmbeddedBroker) -> Path:
    """A folder with what pages name, made once."""
    return make_workshop(tmp_path_factory.mktemp("workshop"), embedded_broker.url)


@pytest.fixture
def follow(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded_broker: EmbeddedBroker
) -> Iterator[Callable[[str], Reader]]:
    """Does what a page says in a copy of the workshop, without any part of this machine's own."""
    folder = tmp_path / "here"
    shutil.copytree(workshop, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "home"))
    reader = Reader(folder, embedded_broker.url, CARRIED, ENGINE)

    def done(page: str) -> Reader:
        if page not in OF_A_FINISHED_RUN:
            begin_anew(folder)
        try:
            reader.follow(CONTRIBUTING if page == CONTRIBUTING.stem else GUIDES / f"{page}.md")
        finally:
            reader.close()
        return reader

    yield done
    reader.close()


@pytest.mark.parametrize(
    "page", ["api", "brokers", "compare", "energy", "how-it-works", "methods", "policy", "report", "terminal"]
)
def test_a_page_does_what_it_says(page: str, follow: Callable[[str], Reader]) -> None:
    reader = follow(page)
    assert set(reader.exit_codes) <= {0}
    assert set(reader.interrupted) <= {0, INTERRUPTED}  # 0: a swarm is done when it is told to be
    assert reader.exit_codes or reader.interrupted


def test_a_rollout_is_ordered_watched_and_taken_back(follow: Callable[[str], Reader]) -> None:
    reader = follow("rollout")
    assert set(reader.exit_codes) == {0}


@pytest.mark.mosquitto
@pytest.mark.usefixtures("mosquitto_is_here")
def test_a_fleet_is_made_served_and_somebody_is_shut_out(follow: Callable[[str], Reader]) -> None:
    reader = follow("security")
    assert reader.exit_codes == [0, 0, 0, 0]
    assert reader.interrupted == [INTERRUPTED]
    assert "revoked" in reader.printed[-1]


def test_signing_leads_from_keys_to_their_replacement(follow: Callable[[str], Reader]) -> None:
    reader = follow("signing")
    assert reader.exit_codes == [0] * 7
    assert reader.interrupted == [INTERRUPTED, INTERRUPTED]
    assert "2 of anna, keyholder-1, keyholder-3" in reader.printed[-1]
    assert Repository(reader.folder / "signing").root.signed.version == 4


@pytest.mark.mosquitto
@pytest.mark.usefixtures("mosquitto_is_here")
def test_a_device_shows_itself_to_home_assistant(
    follow: Callable[[str], Reader], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No systemd runs here that could be told; the files are those of one that does.
    told = tmp_path / "bin"
    told.mkdir()
    for name in ("systemctl", "loginctl"):
        (told / name).write_text("#!/bin/sh\n")
        (told / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(told), prepend=os.pathsep)
    host = service.Host("systemd-user", tmp_path, root=tmp_path)
    monkeypatch.setattr(service.Host, "here", lambda: host)
    reader = follow("home-assistant")
    assert set(reader.exit_codes) == {0}
    assert set(reader.interrupted) == {INTERRUPTED}
    [unit] = (tmp_path / ".config" / "systemd" / "user").glob("*.service")
    assert "--home-assistant" in unit.read_text()


def test_what_the_wire_contract_is_made_by_makes_it(follow: Callable[[str], Reader], tmp_path: Path) -> None:
    made = tmp_path / "here" / "docs" / "protocol"
    (made / "vectors").mkdir(parents=True)
    (tmp_path / "here" / "tools").symlink_to(ROOT / "tools")
    follow("CONTRIBUTING")
    committed = ROOT / "docs" / "protocol"
    for path in [committed / "asyncapi.json", *(committed / "vectors").glob("*.json")]:
        assert (made / path.relative_to(committed)).read_text() == path.read_text(), path.name


@pytest.mark.mosquitto
@needs_micropython
def test_the_board_of_the_page_says_who_it_is(tmp_path: Path, connect: Connect, mosquitto: ManagedBroker) -> None:
    [block] = [block for block in blocks(BOARD) if block.language == "json"]
    told = json.loads(block.text)
    for key in ("broker", "port", "state", "data"):  # these are the board's own
        told.pop(key)
    fleet, name = told.pop("fleet"), told.pop("name")
    _, inbox = connect(mosquitto.url, subscribe=Topics(fleet).birth(name))
    with Board(configure(tmp_path, mosquitto.url, name, fleet, None, **told)):
        inbox.wait(lambda: len(inbox.of(Arrived)) > 0)
    assert json.loads(inbox.of(Arrived)[0].payload)["sender"] == name
