"""What doctor says of clock, broker, membership, service and throttling: each way to be wrong, and what mends it."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from device_runtime import diagnosis, membership, surroundings
from device_runtime.cli.doctor import WIDTH, advice_on, page, surroundings_lines
from device_runtime.diagnosis import Diagnosis, EngineReport, Machine, memory_advice
from device_runtime.engines import ENGINES
from device_runtime.engines.verdict import SelfTest
from device_runtime.host import Host
from device_runtime.identity import Record
from device_runtime.remedies import Place
from device_runtime.service import Agent, install, plan
from device_runtime.service import Host as ServiceHost
from mas_edge.fleet.enrolment import Enrolment
from mas_edge.orchestrator.broker import ManagedBroker
from tests.device_runtime.boards import host_of, write
from tests.device_runtime.boards import install as program
from tests.fleet.members import Clock, enrol, make_fleet

HERE = Place("linux", "pi-1")
NOON = 1_790_000_000.0  # a day in 2026
DAY = 86400.0


# ---------------------------------------------------------------- clock


def test_a_clock_that_can_be_right_needs_nothing(tmp_path: Path) -> None:
    found = surroundings.clock(Host(tmp_path), HERE, NOON, NOON - DAY)
    assert found.text.startswith("2026-")
    assert found.advice == ""


def test_a_clock_before_the_software_came_is_wrong_and_the_command_is_told(tmp_path: Path) -> None:
    found = surroundings.clock(Host(tmp_path), HERE, 0.0, NOON)
    assert found.text.startswith("1970-01-01 00:00 UTC, which is before this software was installed (2026-")
    assert found.serious
    assert found.advice.startswith("the clock is wrong: sudo timedatectl set-ntp true")
    phone = surroundings.clock(Host(tmp_path), Place("termux"), 0.0, NOON)
    assert phone.advice == "the clock is wrong: Android settings, system, date and time: set automatically"


def test_a_clock_that_no_network_has_set_is_told(tmp_path: Path) -> None:
    (tmp_path / "run/systemd/timesync").mkdir(parents=True)
    host = Host(tmp_path)
    assert "not set by the network" in surroundings.clock(host, HERE, NOON, 0.0).text
    assert "timedatectl" in surroundings.clock(host, HERE, NOON, 0.0).advice
    write(tmp_path, "/run/systemd/timesync/synchronized", "")
    assert surroundings.clock(host, HERE, NOON, 0.0).advice == ""


def test_the_clock_of_this_machine_is_not_before_its_own_software() -> None:
    (found, *_) = surroundings.look_around(Host(), HERE, None, "", time.time())
    assert "before this software" not in found.text


# ---------------------------------------------------------------- throttling


@pytest.mark.parametrize(
    ("said", "text", "advice"),
    [
        ("throttled=0x0", "full", ""),
        ("throttled=0x1", "now: its voltage is too low", "the power supply and cable"),
        ("throttled=0x4", "now: it is slowed down", "a heat sink or a fan"),
        ("throttled=0x80008", "now: it is near its heat limit", "a heat sink or a fan"),
        ("throttled=0x50000", "some time since the board started: its voltage is too low", "power supply"),
        ("throttled=", "not known", "sudo usermod -aG video $USER"),
        ("VCHI initialization failed", "not known", "sudo usermod -aG video $USER"),
    ],
)
def test_a_pi_that_is_slowed_down_says_why_and_what_helps(said: str, text: str, advice: str, tmp_path: Path) -> None:
    host = host_of("raspberry-pi-5", tmp_path)
    program(tmp_path / "bin", "vcgencmd", said)
    (found,) = surroundings.throttling(host)
    assert text in found.text
    assert advice in found.advice
    assert bool(found.advice) == bool(advice)


def test_a_board_without_that_command_says_nothing_of_it(tmp_path: Path) -> None:
    assert list(surroundings.throttling(host_of("jetson-orin-nano", tmp_path))) == []


# ---------------------------------------------------------------- membership


def joined(state: Path, now: float) -> Path:
    """A device that has become a member of a fleet at ``now``."""
    fleet = make_fleet(state / "fleet", Clock(now))
    key, certificate = enrol(Enrolment(fleet), "pi-1")
    folder = state / "identity"
    folder.mkdir(parents=True)
    (folder / "device.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + key)
    record = Record("pi-1", "watch", "127.0.0.1", 9, "127.0.0.1:9", "x")
    (folder / "identity.json").write_bytes(msgspec.json.encode(record))
    return state


def test_a_member_is_told_until_when_its_certificate_is_good_and_what_to_do_after(tmp_path: Path) -> None:
    state = joined(tmp_path, NOON)
    good = surroundings.membership(HERE, state, NOON + DAY)
    assert good.text.startswith("pi-1 in fleet watch, its certificate is good until 2026-")
    assert good.advice == ""
    late = surroundings.membership(HERE, state, NOON + 31 * DAY)
    assert "has expired on 2026-" in late.text
    assert "mas-edge fleet invite DIR pi-1 --again" in late.advice
    early = surroundings.membership(HERE, state, NOON - 365 * DAY)
    assert early.text.endswith("not good yet")
    assert "timedatectl" in early.advice
    (state / "identity" / "device.pem").write_text("damaged")
    assert "join again with a new token" in surroundings.membership(HERE, state, NOON).advice


def test_the_state_of_another_member_is_told_as_run_would_refuse_it(tmp_path: Path) -> None:
    state = joined(tmp_path, NOON)
    found = surroundings.membership(Place("linux", "pi-2"), state, NOON)
    assert (found.serious, f"{state} is that of pi-1: give --name pi-1" in found.advice) == (True, True)
    assert not surroundings.membership(Place("linux"), state, NOON).serious, "no name was given"


def test_who_has_not_joined_is_told_to_give_a_broker(tmp_path: Path) -> None:
    assert surroundings.membership(HERE, tmp_path, NOON).text == f"not joined ({tmp_path}): --broker has to be given"
    assert "give --broker URL" in surroundings.reach(HERE, tmp_path, "").text


# ---------------------------------------------------------------- broker


@pytest.mark.mosquitto
def test_a_broker_that_lets_us_in_is_told_with_the_time_it_took(mosquitto: ManagedBroker, tmp_path: Path) -> None:
    found = surroundings.reach(HERE, tmp_path, mosquitto.url)
    assert found.text.startswith(f"{mosquitto.url} lets us in, after ")
    assert found.advice == ""


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("mqtt://127.0.0.1:9", "nothing listens at mqtt://127.0.0.1:9; start the broker, or correct host and port"),
        ("mqtt://no-such-host.invalid", "is not known; correct it, or check the network"),
        ("http://127.0.0.1", "is not valid: expected mqtt://host:port"),
    ],
)
def test_a_broker_that_is_not_reached_says_why_and_what_to_do(
    url: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "REACH_S", 1.0)
    found = surroundings.reach(HERE, tmp_path, url)
    assert found.text == "not reached"
    assert says in found.advice


# ---------------------------------------------------------------- service


def test_the_service_of_a_device_is_found_by_its_state(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert "mas-edge-device install --service" in surroundings.service(HERE, state).advice
    host = ServiceHost("systemd-user", tmp_path / "home", root=tmp_path)
    argv = ("python3", "-m", "device_runtime", "run", "--name", "pi-1", "--home-assistant", "homeassistant")
    made = msgspec.structs.replace(plan(Agent("pi-1", argv, tmp_path, state), host), start=[])
    install(made, state, print)
    found = surroundings.service(HERE, state)
    assert (found.text, found.advice) == ("installed (systemd-user); Home Assistant is told", "")
    Path(made.files[0].path).unlink()
    broken = surroundings.service(HERE, state)
    assert f"is gone: mas-edge-device uninstall --name pi-1 --state {state}, then " in broken.advice
    assert broken.serious
    (state / "service.json").write_text("{")
    assert "cannot be read" in surroundings.service(HERE, state).advice


def test_the_state_of_a_service_of_the_system_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(membership, "SYSTEM_STATE", tmp_path / "system")
    own = tmp_path / "home" / "mas-edge" / "pi-1"
    assert membership.state_of("pi-1") == own
    (tmp_path / "system" / "pi-1").mkdir(parents=True)
    assert membership.state_of("pi-1") == tmp_path / "system" / "pi-1"
    own.mkdir(parents=True)
    assert membership.state_of("pi-1") == own


# ---------------------------------------------------------------- engines and memory


def test_on_a_phone_engines_come_from_termux(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ENGINES["onnxruntime"].install == "pip install 'mas-edge[onnx]'"
    monkeypatch.setenv("PREFIX", "/data/data/com.termux/files/usr")
    assert ENGINES["onnxruntime"].install == "pkg install python-onnxruntime"
    assert ENGINES["torch"].reinstall == "pkg reinstall python-torch"
    assert "pkg install proot-distro (docs/devices/termux-proot.md)" in ENGINES["executorch"].install
    assert (Path(__file__).parents[2] / "docs/devices/termux-proot.md").exists()


def a_machine(free_bytes: int) -> Machine:
    return Machine(
        runtime="", python="", executable="", system="", model="", architecture="", cores=1, memory_bytes=10**9,
        free_bytes=free_bytes,
    )  # fmt: skip


def an_engine(name: str, memory_mb: float) -> EngineReport:
    test = SelfTest(engine=name, step_ms=1.0, memory_mb=memory_mb, ready_s=1.0)
    return EngineReport(name=name, version="1", installed=True, form="", precisions=(), test=test)


def test_an_engine_that_the_free_memory_would_not_carry_is_named_with_a_smaller_one() -> None:
    engines = [an_engine("torch", 250.0), an_engine("onnxruntime", 72.0)]
    assert memory_advice(a_machine(10**9), engines, "torch") == ""
    assert memory_advice(a_machine(0), engines, "torch") == "", "where the system does not say what is free"
    said = memory_advice(a_machine(100_000_000), engines, "torch")
    assert said.startswith("torch took 250 MB for its test, 100 MB are free: --engine onnxruntime takes 72 MB; ")
    assert "--engine" not in memory_advice(a_machine(50_000_000), engines, "onnxruntime")


def test_the_page_tells_all_of_it_in_80_columns_and_every_advice_once(tmp_path: Path) -> None:
    found = surroundings.look_around(host_of("raspberry-pi-5", tmp_path), HERE, tmp_path, "", 0.0)
    assert [each.what for each in found] == ["clock", "speed", "fleet", "broker", "service"]
    whole = Diagnosis(
        machine=a_machine(0), libraries={}, engines=[], best="", surroundings=found
    )  # fmt: skip
    lines = page(whole, advice_on(whole, HERE))
    assert max(map(len, lines)) <= WIDTH
    assert all(line in lines for line in surroundings_lines(found))
    assert "the clock is wrong" in "\n".join(lines)
    assert "mas-edge-device join - < token.txt" in " ".join(line.strip() for line in lines)
    assert diagnosis.memory_advice(whole.machine, [], "") == ""
