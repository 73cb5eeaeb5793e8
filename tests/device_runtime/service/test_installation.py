"""Installing and undoing: files, links and commands of a real process, and what was changed meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from device_runtime.service import Command, File, Installation, install, uninstall
from mas_edge.protocol.errors import DeviceError
from tests.device_runtime.tiny_job import tiny_data


def an_installation(tmp_path: Path, start: Sequence[str] = ("true",)) -> Installation:
    return Installation(
        "systemd",
        [File(str(tmp_path / "units" / "a.service"), "[Unit]\n"), File(str(tmp_path / "boot" / "a"), "x\n", 0o755)],
        [Command(list(start))], [Command(["touch", str(tmp_path / "stopped")])],
        links=[(str(tmp_path / "log" / "run"), "/usr/share/logger")],
    )  # fmt: skip


def files_of(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file() or path.is_symlink()}


def test_what_was_installed_is_undone_to_the_last_file(tmp_path: Path) -> None:
    said: list[str] = []
    state = tmp_path / "state"
    install(an_installation(tmp_path), state, said.append)
    assert files_of(tmp_path) == {"units/a.service", "boot/a", "log/run", "state/service.json"}
    assert (tmp_path / "boot" / "a").stat().st_mode & 0o777 == 0o755
    uninstall(state, said.append)
    assert files_of(tmp_path) == {"stopped"}
    assert said[-1].startswith(f"kept {state}")


def test_a_second_installation_is_refused(tmp_path: Path) -> None:
    install(an_installation(tmp_path), tmp_path / "state", print)
    with pytest.raises(DeviceError, match=r"installed for .* already: run `mas-edge-device uninstall` first"):
        install(an_installation(tmp_path), tmp_path / "state", print)


def test_a_file_that_its_owner_changed_is_left_and_named(tmp_path: Path) -> None:
    said: list[str] = []
    install(an_installation(tmp_path), tmp_path / "state", said.append)
    (tmp_path / "units" / "a.service").write_text("[Unit]\nDescription=mine\n")
    uninstall(tmp_path / "state", said.append)
    assert files_of(tmp_path) == {"units/a.service", "stopped"}
    assert any(line.startswith("left ") and "changed since" in line for line in said)


def test_a_command_that_fails_says_why_and_leaves_the_way_back(tmp_path: Path) -> None:
    failing = ("sh", "-c", "echo no such unit >&2; exit 3")
    with pytest.raises(DeviceError, match="failed: no such unit; `mas-edge-device uninstall` undoes"):
        install(an_installation(tmp_path, failing), tmp_path / "state", print)
    uninstall(tmp_path / "state", print)
    assert files_of(tmp_path) == {"stopped"}


def test_nothing_to_undo_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no service is installed for"):
        uninstall(tmp_path / "state", print)


@pytest.fixture
def phone(tmp_path: Path) -> dict[str, str]:
    """The environment of a Termux whose service commands note how they are called."""
    prefix = tmp_path / "com.termux" / "files" / "usr"
    (prefix / "bin").mkdir(parents=True)
    for name in ("sv-enable", "sv-disable", "sv"):
        script = prefix / "bin" / name
        script.write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n')
        script.chmod(0o755)
    return os.environ | {"PREFIX": str(prefix), "HOME": str(tmp_path / "home")}


def on_phone(phone: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "device_runtime", *words]
    return subprocess.run(command, env=phone, capture_output=True, text=True, check=False)


def test_the_command_line_installs_and_uninstalls_on_termux(phone: dict[str, str], tmp_path: Path) -> None:
    tiny_data(tmp_path / "data", train=4, test=1)
    options = ["--broker", "mqtt://127.0.0.1:9", "--name", "phone-1", "--data", str(tmp_path / "data"), "--verbose"]
    shown = on_phone(phone, "install", "--service", "--dry-run", *options)
    assert shown.returncode == 0, shown.stderr
    assert "would write" in shown.stdout
    assert not (tmp_path / "home").exists()
    done = on_phone(phone, "install", "--service", *options)
    assert done.returncode == 0, done.stderr
    script = tmp_path / "com.termux/files/usr/var/service/mas-edge-phone-1/run"
    assert (
        f"-m device_runtime run --broker mqtt://127.0.0.1:9 --name phone-1 --data {tmp_path}/data" in script.read_text()
    )
    assert script.read_text().rstrip().endswith("--verbose")
    undone = on_phone(phone, "uninstall", "--name", "phone-1")
    assert undone.returncode == 0, undone.stderr
    assert not script.exists()
    assert (tmp_path / "calls").read_text().split("\n")[:2] == [
        "sv-enable mas-edge-phone-1",
        "sv-disable mas-edge-phone-1",
    ]


def test_a_service_without_its_data_is_not_installed(phone: dict[str, str], tmp_path: Path) -> None:
    refused = on_phone(
        phone, "install", "--service", "--broker", "mqtt://h", "--name", "p", "--data", str(tmp_path / "no")
    )
    assert refused.returncode == 4
    assert refused.stderr.startswith("error: ")
    assert not (tmp_path / "home").exists()


def test_a_name_that_home_assistant_would_not_find_is_refused_before_anything_is_installed(
    phone: dict[str, str], tmp_path: Path
) -> None:
    tiny_data(tmp_path / "data", train=4, test=1)
    options = ["--broker", "mqtt://h", "--name", "phone.1", "--data", str(tmp_path / "data"), "--home-assistant"]
    refused = on_phone(phone, "install", "--service", *options)
    assert refused.returncode == 7
    assert "finds no device called 'phone.1'" in refused.stderr
    assert not (tmp_path / "home").exists()
