"""Every line of doctor that reports something missing names what mends it, with the tools that this board has."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from device_runtime.cli.doctor import WIDTH, advice_on, exit_code, page
from device_runtime.diagnosis import examine
from device_runtime.engines import ENGINES
from device_runtime.host import Host
from device_runtime.policy.file import Policy
from device_runtime.remedies import Kind, Lack, Place, command, in_this_python, kind_of
from device_runtime.surroundings import Finding, look_around
from device_runtime.vitals import LACKS, take
from tests.device_runtime.boards import BOARDS, host_of, write

TERMUX = {"PREFIX": "/data/data/com.termux/files/usr"}
# Each recorded board, as what is found out about it; a phone tells by Termux's environment.
KINDS: dict[str, Kind] = {
    "jetson-orin-nano": "jetson", "jetson-agx-orin": "jetson", "jetson-thor": "jetson",
    "raspberry-pi-4": "raspberry-pi", "raspberry-pi-5": "raspberry-pi", "android-sysfs": "termux",
    "android-termux": "termux", "virtual-machine": "linux", "x86-rapl": "linux",
}  # fmt: skip
# ... and the boards again, with another system on them.
WALKED: list[tuple[str, Kind]] = [*KINDS.items(), ("raspberry-pi-4", "raspberry-pi-32"), ("android-termux", "proot")]
# What can be typed or tapped.
MENDS = re.compile(
    r"\b(sudo|pip install|pkg install|mas-edge-device|device_runtime|mount|mkdir|modprobe|docker|rpi-imager)\b|"
    r"Android settings|close other apps|leave the rule|\[power\]|unplug it"
)
ABSENT: dict[Kind, str] = {
    "termux": r"\bsudo\b|\bapt\b|systemd|timedatectl", "proot": r"\bsudo\b|systemd|timedatectl",
    "jetson": r"\bpkg\b|Android", "raspberry-pi": r"\bpkg\b|Android", "raspberry-pi-32": r"\bpkg\b|Android",
    "linux": r"\bpkg\b|Android",
}  # fmt: skip


def test_every_recorded_board_is_walked() -> None:
    assert set(KINDS) == {path.stem for path in BOARDS.glob("*.txt")}


@pytest.mark.parametrize("board", KINDS)
def test_a_board_is_known_by_what_it_says_of_itself(board: str, tmp_path: Path) -> None:
    host = host_of(board, tmp_path)
    phone = KINDS[board] == "termux"
    assert kind_of(host, TERMUX if phone else {}) == KINDS[board]
    narrow = "raspberry-pi-32" if KINDS[board] == "raspberry-pi" else KINDS[board]
    assert kind_of(host, TERMUX if phone else {}, wide=False) == narrow


def test_a_distribution_inside_termux_and_a_jetson_whose_device_tree_is_hidden_are_known(tmp_path: Path) -> None:
    host = host_of("virtual-machine", tmp_path)
    write(host.root, "/etc/nv_tegra_release", "# R36 (release)")
    assert kind_of(host, {}) == "jetson"
    write(host.root, "/system/build.prop", "ro.product.model=x")
    assert kind_of(host, {}) == "proot"


@pytest.mark.parametrize("kind", ABSENT)
def test_everything_that_can_be_missing_has_an_answer_with_the_tools_of_each_kind(kind: Kind) -> None:
    for lack in get_args(Lack):
        text = Place(kind, "pi-1").mend(lack)
        assert MENDS.search(text), text
        assert not re.search(ABSENT[kind], text), text
        assert "{" not in text


def stripped(host: Host) -> Host:
    """The board with nothing left that a sensor could be read from."""
    for name in ("sys", "proc/net", "proc/meminfo", "proc/stat"):
        path = host.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return Host(host.root, str(host.root / "nothing"))


@pytest.mark.parametrize("strip", [False, True], ids=["as recorded", "stripped"])
@pytest.mark.parametrize(("board", "kind"), WALKED)
def test_every_line_that_reports_something_missing_names_what_mends_it_on_this_board(
    board: str, kind: Kind, strip: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_runtime.vitals.APART_S", 0.0)
    monkeypatch.setattr("device_runtime.engines.find_spec", lambda _name: None)
    if kind == "termux":
        monkeypatch.setenv("PREFIX", TERMUX["PREFIX"])
    host = stripped(host_of(board, tmp_path)) if strip else host_of(board, tmp_path)
    place = Place(kind, "pi-1")
    found = msgspec.structs.replace(
        examine(), vitals=take(host, place, Policy(), tmp_path),
        surroundings=look_around(host, place, tmp_path, "http://127.0.0.1", 0.0),
    )  # fmt: skip
    advice = advice_on(found, place)
    for each in found.surroundings:
        assert each.advice or each.text.startswith("full"), each
    assert found.vitals is not None
    assert set(found.vitals.conditions.unknown) <= set(LACKS)
    for what in found.vitals.conditions.unknown:
        assert any(text.startswith(f"{what}: ") for text in advice)
    for reading in found.vitals.power:
        assert not reading.problem or any(reading.problem in text for text in advice)
    assert {text.partition(":")[0] for text in advice} >= set(ENGINES)
    assert [text for text in advice if not MENDS.search(text) and "broker:" not in text] == []
    assert [text for text in advice if re.search(ABSENT[kind], text)] == []
    lines = page(found, advice)
    assert max(map(len, lines)) <= WIDTH
    assert lines[-1] == "Not in order: clock, broker. Nothing here can train."


# ---------------------------------------------------------------- how commands are called here


def test_a_command_for_root_is_named_with_its_path_and_keeps_the_key_where_the_service_looks() -> None:
    said = Place("raspberry-pi", "pi-1").mend("membership")
    assert said.startswith(f"sudo {command(whole=True)} join --state /var/lib/mas-edge/pi-1 - < token.txt")
    assert Path(command(whole=True).partition(" ")[0]).exists()
    assert " --state /srv/x -" in Place("raspberry-pi", "pi-1", Path("/srv/x")).mend("membership")
    assert "--state" not in Place("linux", "pi-1").mend("membership")
    assert Place("linux", "pi-1", Path("/srv/x")).mend("service").count(" --state /srv/x ") == 2  # installed, or run


def test_where_the_shell_would_take_another_pip_that_of_this_environment_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin" / "python"))
    said = in_this_python("pip install 'mas-edge[onnx]'")
    assert said == f"{tmp_path}/bin/python -m pip install 'mas-edge[onnx]'"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "pip").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert in_this_python("pip install x") == "pip install x"


# ---------------------------------------------------------------- what automation sees


@pytest.mark.parametrize(
    ("best", "serious", "code"),
    [("torch", [], 0), ("", [], 7), ("torch", ["broker"], 5), ("torch", ["clock", "broker"], 7), ("", ["broker"], 7)],
)
def test_the_exit_code_tells_whether_the_device_can_do_its_work(
    best: str, serious: list[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("device_runtime.engines.find_spec", lambda _name: None)
    around = [Finding(what=what, text="", serious=what in serious) for what in ("clock", "fleet", "broker", "service")]
    found = msgspec.structs.replace(examine(), best=best, surroundings=around)
    assert exit_code(found) == code
