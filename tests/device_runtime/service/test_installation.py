"""Installing and undoing: files, links and commands of a real process, and what was changed meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from device_runtime.service import Command, File, Installation, install, installation, uninstall
from mas_edge.protocol.errors import DeviceError
from tests.device_runtime.tiny_job import tiny_data
from tests.docs.pages import ROOT


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
    with pytest.raises(DeviceError, match="no such unit; what was installed so far is undone by `mas-edge"):
        install(an_installation(tmp_path, failing), tmp_path / "state", print)
    uninstall(tmp_path / "state", print)
    assert files_of(tmp_path) == {"stopped"}


def test_what_was_not_done_is_not_said_to_be_done(tmp_path: Path) -> None:
    said: list[str] = []
    unwilling = [Command(["sh", "-c", "echo not here; exit 1"], needed=False)]
    made = msgspec.structs.replace(an_installation(tmp_path), stop=unwilling, after=[Command(["no-such-program"])])
    install(msgspec.structs.replace(made, start=unwilling), tmp_path / "state", said.append)
    uninstall(tmp_path / "state", said.append)
    failed = [line for line in said if line.startswith("ran ")]
    assert [line.partition("without success: ")[2] for line in failed[:2]] == ["not here"] * 2
    assert "No such file" in failed[2]
    assert files_of(tmp_path) == set()


def test_a_command_that_needs_time_gets_it_and_then_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "AGAIN_S", 0.0)
    third = Command(["sh", "-c", f"echo x >> {tmp_path}/n; test $(wc -l < {tmp_path}/n) = 3"], patience_s=60.0)
    install(msgspec.structs.replace(an_installation(tmp_path), start=[third]), tmp_path / "state", print)
    assert (tmp_path / "n").read_text() == "x\n" * 3
    uninstall(tmp_path / "state", print)
    never = Command(["false"], patience_s=0.01, advice="open it again")
    with pytest.raises(DeviceError, match="false failed: exit code 1; open it again; what was installed"):
        install(msgspec.structs.replace(an_installation(tmp_path), start=[never]), tmp_path / "state", print)


def test_what_the_manager_put_into_the_services_own_folder_goes_with_it(tmp_path: Path) -> None:
    made = msgspec.structs.replace(an_installation(tmp_path), folders=[str(tmp_path / "boot")])
    for changed in (False, True):
        install(made, tmp_path / "state", print)
        (tmp_path / "boot" / "supervise").mkdir()
        (tmp_path / "boot" / "down").touch()
        if changed:
            (tmp_path / "boot" / "a").write_text("mine\n")
        uninstall(tmp_path / "state", print)
        assert (tmp_path / "boot" / "down").exists() is changed


def test_a_file_that_somebody_else_wrote_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "a").write_text("mine\n")
    with pytest.raises(DeviceError, match=r"boot/a is there already, with another text: .*nothing was installed"):
        install(an_installation(tmp_path), tmp_path / "state", print)
    assert files_of(tmp_path) == {"boot/a"}


def test_where_nothing_may_be_written_nothing_is_installed_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").touch()  # no folder can be made below it, even by root
    with pytest.raises(DeviceError, match=r"cannot write .*service\.json: .*; nothing was installed; --state DIR"):
        install(an_installation(tmp_path), tmp_path / "state", print)
    assert files_of(tmp_path) == {"state"}


def test_nothing_to_undo_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no service is installed for"):
        uninstall(tmp_path / "state", print)
    (tmp_path / "state" / "service.json").mkdir(parents=True)
    with pytest.raises(DeviceError, match="cannot be read: Is a directory; run this as the user who installed it"):
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
    done = on_phone(phone, "install", "--service", "--json", *options)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["installed"], len(told["files"])) == (True, shown.stdout.count("\n# "))
    assert any("sv-enable mas-edge-phone-1" in step for step in told["steps"])
    script = tmp_path / "com.termux/files/usr/var/service/mas-edge-phone-1/run"
    assert (
        f"-m device_runtime run --broker mqtt://127.0.0.1:9 --name phone-1 --data {tmp_path}/data" in script.read_text()
    )
    assert script.read_text().rstrip().endswith("--verbose")
    again = on_phone(phone, "install", "--service", *options)
    assert (again.returncode, again.stdout) == (7, "")
    assert "run `mas-edge-device uninstall --name phone-1` first" in again.stderr
    undone = on_phone({key: phone[key] for key in ("HOME", "PATH")}, "uninstall", "--name", "phone-1", "--json")
    assert undone.returncode == 0, undone.stderr
    assert any("sv-disable mas-edge-phone-1" in step for step in json.loads(undone.stdout)["steps"])
    assert files_of(tmp_path / "home") == set()
    assert not script.parent.exists()
    assert (tmp_path / "calls").read_text().splitlines() == [
        "sv-enable mas-edge-phone-1", "sv-disable mas-edge-phone-1", "sv -w 20 stop mas-edge-phone-1",
    ]  # fmt: skip
    nothing = on_phone(phone, "uninstall", "--name", "phone-1")
    assert nothing.returncode == 7
    assert "no service is installed for" in nothing.stderr
    assert on_phone(phone, "uninstall", "--name", "../phone-1").returncode == 2


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


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--policy", "policy.toml"], "policy.toml: unknown key 'rule'; allowed there: rules, processor, power"),
        (["--policy", "none.toml"], "policy file none.toml cannot be read"),
        (["--trust", "none.json"], "there is no root to trust at none.json"),
        (["--engine", "steam"], "engine 'steam' is not known; allowed: auto, torch"),
    ],
)
def test_an_option_with_which_the_agent_would_end_at_once_is_refused_before_anything_is_installed(
    phone: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], says: str
) -> None:
    tiny_data(tmp_path / "data", train=4, test=1)
    monkeypatch.chdir(tmp_path)
    Path("policy.toml").write_text("[rule]\n")
    known = ["--broker", "mqtt://h", "--name", "p", "--data", "data"]
    refused = on_phone(phone | {"PYTHONPATH": str(ROOT)}, "install", "--service", *known, *options)
    assert (refused.returncode, refused.stdout) == (7, "")
    assert says in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "home").exists()
