"""A board in a fleet of members: TLS by MicroPython, a certificate of the kit's authority, a real mosquitto."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mas_edge.fleet.folder import Fleet
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.protocol.messages import Birth
from tests.e2e.fleet import until
from tests.fleet.members import DAY, Clock, make_fleet, member_file
from tests.micro.board import Board, configure, needs_micropython
from tests.micro.desk import MODEL, NAME, Desk

pytestmark = [pytest.mark.e2e, needs_micropython]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return make_fleet(tmp_path_factory.mktemp("members") / "fleet", Clock(time.time()))


@pytest.fixture(scope="module")
def broker(fleet: Fleet, mosquitto_is_here: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagedBroker]:
    with ManagedBroker(tmp_path_factory.mktemp("broker"), port=fleet.settings.port, fleet=fleet) as running:
        yield running


def board_of(fleet: Fleet, folder: Path, **changed: Any) -> Board:
    """A board with the files that ``mas-edge-device join`` makes: the authority's, and one with certificate and key."""
    own = str(member_file(fleet, NAME, folder))
    known = {"ca": str(fleet.file("ca.pem")), "certificate": own, "client": f"{NAME}.5f0c", **changed}
    tasks = {"a": {"kind": "class", "classes": 3}, "b": {"kind": "value"}}
    url = f"mqtt://127.0.0.1:{fleet.settings.port}"
    return Board(configure(folder / "board", url, NAME, "watch", None, tasks=tasks, input_shape=[6, 4], **known))


def test_a_member_of_the_fleet_gets_a_model_over_tls(fleet: Fleet, broker: ManagedBroker, tmp_path: Path) -> None:
    desk = Desk(broker.url, "watch")
    with board_of(fleet, tmp_path):
        desk.next(Birth)
        desk.deploy("one", MODEL)
        report = desk.offer().report
        assert (report.healthy, report.health_reason) == (True, "")
        assert report.received_bytes > len(MODEL)
    desk.stop()


def test_a_board_believes_no_broker_of_another_authority(fleet: Fleet, broker: ManagedBroker, tmp_path: Path) -> None:
    other = make_fleet(tmp_path / "other", Clock(time.time()))
    with board_of(fleet, tmp_path, ca=str(other.file("ca.pem"))) as board:
        until(lambda: "; check ca, the broker's name, and the clock: it says 2" in board.console, "a no", 30)
        assert "not correctly signed by the trusted CA" in board.console
        assert board.on  # and tries again


@pytest.mark.parametrize("case", ["no such file", "no certificate in it"])
def test_a_file_that_cannot_be_used_is_named(fleet: Fleet, broker: ManagedBroker, tmp_path: Path, case: str) -> None:
    path = tmp_path / "own.pem"
    if case == "no certificate in it":
        path.write_text("-----BEGIN NOTHING-----\nAAAA\n-----END NOTHING-----\n")
    with board_of(fleet, tmp_path, certificate=str(path)) as board:
        until(lambda: ": certificate or key cannot be used" in board.console, "the reason", 30)


def test_a_board_with_the_wrong_time_says_which_date_it_believes_in(tmp_path: Path) -> None:
    later = make_fleet(tmp_path / "later", Clock(time.time() + 10 * DAY))  # to it the board's clock is behind
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(later.file("broker.pem"))
    with socket.create_server(("127.0.0.1", later.settings.port)) as listener, ThreadPoolExecutor(1) as pool:
        done = pool.submit(_shake_hands, listener, served)
        with board_of(later, tmp_path) as board:
            until(lambda: "validity starts in the future; check ca" in board.console, "the reason", 30)
            assert f"the clock: it says {time.strftime('%Y-', time.gmtime())}" in board.console
        assert "alert" in str(done.result())


def _shake_hands(listener: socket.socket, context: ssl.SSLContext) -> Exception | None:
    connection, _ = listener.accept()
    try:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1)
    except OSError as error:
        return error
    return None
