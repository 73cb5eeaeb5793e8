"""Whether the user of a service of the system gets at what the service needs, by the modes of real files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from device_runtime.service import check_access
from device_runtime.service.access import owner_of
from mas_edge.protocol.errors import DeviceError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
PI = 4711  # a user that this machine does not know


@pytest.fixture
def board() -> Iterator[Path]:
    """A system with an environment, data of the user, and the state directory that systemd makes."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        root = Path(name)
        root.chmod(0o755)
        for folder in ("opt/env/bin", "home/recordings", "state/pi-1"):
            (root / folder).mkdir(parents=True)
        (root / "opt/env/bin/python").touch()
        (root / "home/recordings/data.toml").touch()
        for path in (root / "home", *(root / "home").rglob("*")):
            os.chown(path, PI, PI)
        yield root


def check(board: Path, state: str = "state/pi-1") -> None:
    words = [str(board / "opt/env/bin/python"), "-m", "device_runtime", "--state", str(board / state)]
    check_access(words, board / "home/recordings", board / state, board / "state/pi-1")


def to_root(board: Path) -> None:
    for path in (board / "home/recordings", board / "home/recordings/data.toml"):
        os.chown(path, 0, 0)


def closed_environment(board: Path) -> None:
    (board / "opt").chmod(0o700)


def a_file_of_root(board: Path) -> None:
    os.chown(board / "home/recordings/data.toml", 0, 0)
    (board / "home/recordings/data.toml").chmod(0o600)


def roots_data_in_a_closed_home(board: Path) -> None:
    to_root(board)
    (board / "home").chmod(0o700)


class Closed(NamedTuple):
    """What is closed to the user of the service, and what is said."""

    happens: Callable[[Path], None]
    says: str


CLOSED = [
    Closed(closed_environment, r"as user 4711, who may not read .*/opt, .*chmod o\+rx"),
    Closed(a_file_of_root, r"data\.toml needs: sudo chown -R USER .*/recordings"),
    Closed(roots_data_in_a_closed_home, r"a user of its own, as the data .* such as /srv or /opt"),
]


def test_what_is_open_is_installed(board: Path) -> None:
    check(board)
    assert owner_of(board / "home/recordings") == PI
    to_root(board)
    check(board)
    assert owner_of(board / "home/recordings") is None


@pytest.mark.parametrize("what", CLOSED, ids=lambda what: what.happens.__name__)
def test_what_is_closed_to_the_services_user_is_named_with_what_opens_it(what: Closed, board: Path) -> None:
    what.happens(board)
    with pytest.raises(DeviceError, match=what.says):
        check(board)


def test_a_state_directory_of_somebody_else_is_refused(board: Path) -> None:
    (board / "srv").mkdir()
    with pytest.raises(DeviceError, match=r"to whom .*/srv does not belong: leave --state out .*/state/pi-1"):
        check(board, "srv")
    os.chown(board / "srv", PI, PI)
    check(board, "srv")
