"""The commands as a user starts them: exit codes, one clear line, Ctrl-C, and what ``status`` says meanwhile."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from device_runtime.edge.mqtt import Arrived
from mas_edge.cli import main
from mas_edge.orchestrator.broker import EmbeddedBroker
from mas_edge.orchestrator.broker.supervisor import answers, free_port
from mas_edge.protocol.messages import Ack, Plan
from tests.conftest import Connect
from tests.e2e.fleet import PATIENCE_S, Fleet, job_text, until, write_folder
from tests.e2e.puppet import Puppet
from tests.e2e.tap import Tap

BIG = 20_000  # train samples: a device has enough to do to be interrupted


def command(module: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip


def error_of(ended: subprocess.CompletedProcess[str]) -> str:
    """The one line of an error."""
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    return ended.stderr


def interrupt(process: subprocess.Popen[bytes]) -> int:
    """Press Ctrl-C and wait for the end."""
    process.send_signal(signal.SIGINT)
    return process.wait(PATIENCE_S)


@dataclass
class Serving:
    """``mas-edge serve`` in the middle of a training round, which a puppet keeps open."""

    fleet: Fleet
    process: subprocess.Popen[bytes]
    keeper: Puppet
    plan: Plan


@pytest.fixture(scope="module")
def serving(embedded_broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    text = job_text(min_devices=2, deadline_s=4 * PATIENCE_S)
    with Fleet(embedded_broker.url, tmp_path_factory.mktemp("serving"), text) as fleet:
        keeper = Puppet(fleet.url, fleet.job.fleet, f"keeper-{fleet.job.fleet}")
        fleet.device("ada")
        process = fleet.serve("--json")
        keeper.refuse(keeper.plan("evaluate-initial"))
        plan = keeper.plan("merged-0000")
        keeper.ack(plan)
        until(lambda: [r.reports for r in fleet.snapshot().open_rounds] == [1], "one of two reports")
        yield Serving(fleet, process, keeper, plan)
        keeper.leave()


# ---------------------------------------------------------------------- serve and status


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("rounds = 3", "rounds = 0"), "federation.rounds is 0; allowed: at least 1"),
        (("rounds = 3", 'rounds = "many"'), "federation.rounds"),
        (("groups = 2", "group = 2"), "unknown key 'group'"),
        (('kind = "value"', 'kind = "vlaue"'), "vlaue"),
        (("[network]", "[network"), "is not valid TOML"),
    ],
)
def test_a_malformed_job_file_is_one_line_that_names_it(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    job = tmp_path / "job.toml"
    job.write_text(job_text().replace(*change))
    ended = command("mas_edge", "serve", job, "--state", tmp_path / "state")
    assert ended.returncode == 3
    assert str(job) in error_of(ended)
    assert words in ended.stderr
    assert not (tmp_path / "state").exists()


def test_status_shows_in_words_where_a_run_stands(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--state", str(serving.fleet.state)]) == 0
    said = capsys.readouterr().out
    assert serving.plan.job in said
    assert "phase    merge" in said
    assert "merged-0000: 1 of 2 reports" in said
    assert "2 of 2 online" in said
    assert "ada" in said


def test_status_shows_the_same_as_json(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--state", str(serving.fleet.state), "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["run"], status["phase"], status["finished"]) == (serving.plan.job, "merge", None)
    assert [(r["round_id"], r["reports"]) for r in status["open_rounds"]] == [("merged-0000", 1)]
    assert {device["name"]: device["online"] for device in status["devices"]} == {
        "ada": True,
        serving.keeper.name: True,
    }


def test_status_of_a_directory_without_a_run_says_so(tmp_path: Path) -> None:
    ended = command("mas_edge", "status", "--state", tmp_path)
    assert ended.returncode == 6
    assert str(tmp_path) in error_of(ended)


@pytest.mark.parametrize("which", ["the same", "managed", "embedded"])
def test_a_second_serve_on_the_same_state_is_refused(
    serving: Serving, which: str, request: pytest.FixtureRequest
) -> None:
    if which == "managed":
        request.getfixturevalue("mosquitto_is_here")
    url = serving.fleet.url if which == "the same" else which
    ended = command("mas_edge", "serve", serving.fleet.job_file, "--state", serving.fleet.state, "--broker", url)
    assert ended.returncode == 6
    assert "another orchestrator works in" in ended.stderr.splitlines()[-1]
    assert serving.process.poll() is None


def test_ctrl_c_ends_serve_in_order_and_its_state_goes_on_only_with_the_same_job(serving: Serving) -> None:
    fleet = serving.fleet
    assert interrupt(serving.process) == 130
    log = fleet.log("serve.log")
    assert "Traceback" not in log
    result = json.loads(log[log.index("\n{\n") :])  # --json: what there is so far
    assert (result["done"], result["phase"]) == (False, "merge")

    other = fleet.directory / "other.toml"
    other.write_text(fleet.job_file.read_text().replace("rounds = 3", "rounds = 4"))
    ended = command("mas_edge", "serve", other, "--state", fleet.state, "--broker", fleet.url)
    assert ended.returncode == 3
    assert f"{fleet.state} holds a run of other settings" in ended.stderr.splitlines()[-1]

    heard = len(serving.keeper.messages)
    again = fleet.serve()
    assert serving.keeper.plan("merged-0000", after=heard).job == serving.plan.job
    again.send_signal(signal.SIGTERM)
    assert again.wait(PATIENCE_S) == 130


def test_serve_says_that_the_broker_is_not_there_and_ctrl_c_does_not_wait_for_it(tmp_path: Path) -> None:
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and nothing listens: no broker of another test can be there
        url = f"mqtt://127.0.0.1:{nobody.getsockname()[1]}"
        _cannot_reach(url, tmp_path)


def _cannot_reach(url: str, tmp_path: Path) -> None:
    with Fleet(url, tmp_path, job_text()) as fleet:
        arguments = ["serve", str(fleet.job_file), "--state", str(tmp_path / "two"), "--broker", url]
        impatient = fleet.start("mas_edge", arguments, "two.log")
        patient = fleet.serve()
        until(lambda: "nothing listens at" in fleet.log("two.log"), "the first word on the broker")
        assert interrupt(impatient) == 130
        assert patient.wait(PATIENCE_S) == 5
        last = fleet.log("serve.log").splitlines()[-1]
        assert last.startswith(f"error: cannot connect to the broker at {url}")
        assert "start the broker, or correct host and port" in last
        assert "Traceback" not in fleet.log("serve.log") + fleet.log("two.log")


@pytest.mark.parametrize("which", [pytest.param("managed", marks=pytest.mark.mosquitto), "embedded"])
def test_ctrl_c_ends_the_broker_that_serve_started_too(
    tmp_path: Path, which: str, request: pytest.FixtureRequest
) -> None:
    if which == "managed":
        request.getfixturevalue("mosquitto_is_here")
    with Fleet(which, tmp_path, job_text()) as fleet:
        process = fleet.serve()
        until(lambda: "waiting for devices: 0 of 3 are there" in fleet.log("serve.log"), "the orchestrator's readiness")
        ports = re.findall(r"connected to mqtt://127\.0\.0\.1:(\d+)", fleet.log("serve.log"))
        assert answers("127.0.0.1", int(ports[0]))
        assert interrupt(process) == 130
        assert not answers("127.0.0.1", int(ports[0]))
        assert "Traceback" not in fleet.log("serve.log")


# ---------------------------------------------------------------------- the device

WRONG: dict[str, tuple[dict[str, str], int, str]] = {
    "no data folder": ({"--data": "nowhere"}, 4, "nowhere"),
    "a malformed URL": ({"--broker": "http://example.org"}, 5, "expected mqtt://host:port"),
    "an engine nobody knows": (
        {"--engine": "steam"},
        7,
        "engine 'steam' is not known; allowed: auto, torch, onnxruntime",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_device_that_cannot_start_says_why_in_one_line(tmp_path: Path, case: str) -> None:
    changed, code, words = WRONG[case]
    ended = device_run(tmp_path, changed)
    assert ended.returncode == code
    assert words in error_of(ended)


def test_a_device_whose_data_folder_lacks_a_file_names_it(tmp_path: Path) -> None:
    (write_folder(tmp_path / "data") / "x.npy").unlink()
    ended = device_run(tmp_path, {})
    assert ended.returncode == 4
    assert "x.npy" in error_of(ended)


@pytest.mark.parametrize("option", ["--name", "--fleet"])
def test_a_name_that_cannot_stand_in_a_topic_is_a_usage_error(tmp_path: Path, option: str) -> None:
    ended = device_run(tmp_path, {option: "kitchen/pi"})
    assert ended.returncode == 2
    assert f"argument {option}: the name 'kitchen/pi' is not a valid name" in ended.stderr


def device_run(directory: Path, changed: dict[str, str]) -> subprocess.CompletedProcess[str]:
    if not (directory / "data").exists():
        write_folder(directory / "data")
    options = {"--broker": "mqtt://127.0.0.1:1", "--name": "pi", "--data": str(directory / "data")}
    options |= {"--state": str(directory / "state"), **changed}
    return command("device_runtime", "run", *(word for option in options.items() for word in option))


def test_a_device_keeps_trying_to_reach_its_broker_and_says_so(tmp_path: Path, connect: Connect) -> None:
    port = free_port()
    with Fleet(f"mqtt://127.0.0.1:{port}", tmp_path, job_text(fleet="late")) as fleet:
        early = fleet.device_process("early")
        given_up = fleet.device_process("given-up")
        for name in ("early", "given-up"):
            until(lambda name=name: "nothing listens at" in fleet.log(f"{name}.log"), f"{name} says so")  # type: ignore[misc]
        assert interrupt(given_up) == 130
        with EmbeddedBroker(tmp_path, port):
            _, inbox = connect(fleet.url, subscribe="fl/v1/late/dev/early/birth")
            inbox.wait(lambda: bool(inbox.of(Arrived)))
            early.send_signal(signal.SIGTERM)
            assert early.wait(PATIENCE_S) == 0
        assert "Traceback" not in fleet.log("early.log") + fleet.log("given-up.log")


def test_ctrl_c_ends_a_device_in_the_middle_of_its_training(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    text = job_text(min_devices=1, deadline_s=4 * PATIENCE_S)
    with Fleet(embedded_broker.url, tmp_path, text) as fleet, Tap(fleet.url, fleet.job.fleet) as tap:
        device = fleet.device_process("busy", train=BIG)
        orchestrator = fleet.orchestrate()
        tap.wait_for("busy", lambda said: isinstance(said, Ack) and said.round_id == "merged-0000")
        until(lambda: "merged-0000: train of" in fleet.log("busy.log"), "the beginning of the training")
        assert interrupt(device) == 130
        assert "Traceback" not in fleet.log("busy.log")
        until(lambda: any("busy left: stopped" in e.text for e in fleet.snapshot().events), "the goodbye")
        assert orchestrator.stop() is False
