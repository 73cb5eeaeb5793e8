"""What a service is made of on each system; systemd itself reads the units where its tools are here."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from device_runtime.service import Agent, Host, plan
from device_runtime.service.host import Manager
from mas_edge.protocol.errors import DeviceError

ARGV = ("/usr/bin/python3", "-m", "device_runtime", "run", "--name", "pi-1", "--data", "/srv/my recordings/100 %")


def an_agent(tmp_path: Path, argv: tuple[str, ...] = ARGV) -> Agent:
    return Agent("pi-1", argv, tmp_path, tmp_path / "state")


def a_host(manager: Manager, tmp_path: Path) -> Host:
    return Host(manager, tmp_path / "home", tmp_path / "usr", tmp_path / "root")


@pytest.mark.parametrize("manager", ["systemd", "systemd-user", "termux"])
def test_every_manager_runs_exactly_this_command_line(manager: Manager, tmp_path: Path) -> None:
    first = plan(an_agent(tmp_path), a_host(manager, tmp_path)).files[0].text
    if manager == "termux":
        words = shlex.split(first.splitlines()[-1])
        assert words[:4] == ["exec", "nice", "-n", "10"]
        assert tuple(words[4:]) == ARGV
    else:
        line = next(line for line in first.splitlines() if line.startswith("ExecStart="))
        assert tuple(shlex.split(line.removeprefix("ExecStart=").replace("%%", "%"))) == ARGV


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's tools are not here")
@pytest.mark.parametrize("manager", ["systemd", "systemd-user"])
def test_systemd_finds_nothing_wrong_with_the_unit(manager: Manager, tmp_path: Path) -> None:
    python = shutil.which("python3") or "/bin/true"
    unit = plan(an_agent(tmp_path, (python, *ARGV[1:])), a_host(manager, tmp_path)).files[0]
    path = tmp_path / Path(unit.path).name
    path.write_text(unit.text)
    read = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    about_it = [line for line in read.stderr.splitlines() if path.name in line]
    assert about_it == []
    assert read.returncode == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's tools are not here")
def test_the_unit_of_the_system_is_walled_in(tmp_path: Path) -> None:
    unit = plan(an_agent(tmp_path), a_host("systemd", tmp_path)).files[0]
    path = tmp_path / Path(unit.path).name
    path.write_text(unit.text)
    command: list[str] = ["systemd-analyze", "security", "--offline=true", "--threshold=40", str(path)]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout[-400:]  # systemd's own measure: below 4 of 10 is "OK"


def test_it_runs_as_the_owner_of_the_data_and_never_as_root(tmp_path: Path) -> None:
    text = plan(an_agent(tmp_path), a_host("systemd", tmp_path)).files[0].text
    owner = tmp_path.stat().st_uid
    assert ("DynamicUser=yes" if owner == 0 else f"User={owner}") in text.splitlines()


def test_a_line_break_in_a_path_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="expected text of one line"):
        plan(an_agent(tmp_path, (*ARGV, "x\nUser=root")), a_host("systemd", tmp_path))


def test_termux_starts_with_the_phone_and_keeps_it_awake(tmp_path: Path) -> None:
    made = plan(an_agent(tmp_path), a_host("termux", tmp_path))
    boot = next(file for file in made.files if ".termux/boot" in file.path)
    assert boot.mode == 0o755
    assert boot.text.splitlines()[1] == "termux-wake-lock"
    assert [link for link, _ in made.links] == [str(tmp_path / "usr/var/service/mas-edge-pi-1/log/run")]


def test_a_system_without_a_known_manager_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="expected systemd or Termux; have whatever starts programs"):
        Host.here({"HOME": str(tmp_path)}, root=tmp_path)


def test_termux_without_services_is_told_the_package(tmp_path: Path) -> None:
    prefix = tmp_path / "com.termux" / "files" / "usr"
    with pytest.raises(DeviceError, match="pkg install termux-services"):
        Host.here({"HOME": str(tmp_path), "PREFIX": str(prefix)})


def test_the_state_of_a_user_is_where_the_user_keeps_it(tmp_path: Path) -> None:
    prefix = tmp_path / "com.termux" / "files" / "usr"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "sv-enable").touch()
    environment = {"HOME": str(tmp_path), "PREFIX": str(prefix)}
    assert Host.here(environment).state == tmp_path / ".local/state/mas-edge"
    assert Host.here({**environment, "XDG_STATE_HOME": str(tmp_path / "x")}).state == tmp_path / "x/mas-edge"


@pytest.mark.parametrize("manager", ["systemd", "systemd-user", "termux"])
def test_the_way_back_is_a_whole_command(manager: Manager, tmp_path: Path) -> None:
    host = a_host(manager, tmp_path)
    agent = Agent("pi-1", ARGV, tmp_path, host.state / "pi-1")
    assert plan(agent, host).undo == "mas-edge-device uninstall --name pi-1"
    assert plan(an_agent(tmp_path), host).undo.endswith(f" --state {tmp_path}/state")


def test_a_log_file_elsewhere_may_be_written_from_within_the_walls(tmp_path: Path) -> None:
    agent = Agent("pi-1", ARGV, tmp_path, tmp_path / "state", tmp_path / "my logs" / "pi-1.log")
    unit = plan(agent, a_host("systemd", tmp_path)).files[0].text
    assert f'ReadWritePaths=-{tmp_path}/state "-{tmp_path}/my logs"\n' in unit
