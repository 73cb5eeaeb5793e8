"""``mas-edge fleet`` and ``serve --fleet``: what the operator types and reads."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from device_runtime import identity
from device_runtime.edge.address import parse_url
from mas_edge.cli import main
from mas_edge.cli.fleet import open_fleet
from mas_edge.orchestrator.broker import open_broker
from mas_edge.orchestrator.broker.supervisor import free_port
from mas_edge.protocol.enrolment import read_token
from tests.e2e.fleet import job_text
from tests.inbox import until

Captured = pytest.CaptureFixture[str]


def _init(folder: Path, *more: str) -> int:
    ports = ("--port", str(free_port()), "--enrolment-port", str(free_port()))
    return main(["fleet", "init", str(folder), "--host", "127.0.0.1", *ports, *more])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_fleet_from_its_making_to_a_revoked_device(tmp_path: Path, capsys: Captured) -> None:
    folder = tmp_path / "fleet"
    assert _init(folder, "--name", "watch") == 0
    assert "keep a copy" in capsys.readouterr().out
    assert main(["fleet", "invite", str(folder), "pi-1", "--hold"]) == 0
    shown = capsys.readouterr()
    (token,) = shown.out.splitlines()
    assert shown.err.count("\n") > 10, "the QR code is missing"
    log_file = tmp_path / "log" / "fleet.log"
    command = [sys.executable, "-m", "mas_edge", "fleet", "serve", str(folder), "--log-json"]
    command += ["--log-file", str(log_file)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as serving:
        port = int(read_token(token).address.rpartition(":")[2])
        until(lambda: _listens(port))

        def approve(_: str) -> None:
            mark = identity.fingerprint(tmp_path / "device")
            assert main(["fleet", "list", str(folder)]) == 0
            assert re.search(rf"^pi-1 +waiting +{mark[:16]}", capsys.readouterr().out, re.MULTILINE)
            assert main(["fleet", "approve", str(folder), "pi-1", mark[:16], "--json"]) == 0
            assert json.loads(capsys.readouterr().out)["state"] == "invited"

        identity.join(tmp_path / "device", read_token(token), approve)
        serving.send_signal(signal.SIGINT)
        log = serving.communicate()[1]
    assert serving.returncode == 0
    lines = [json.loads(line) for line in log_file.read_text().splitlines()]
    assert "enrolment: a certificate for pi-1" in [line["message"] for line in lines]
    assert all(line.keys() == {"time", "level", "message", "job", "round", "device", "logger"} for line in lines)
    assert log.splitlines() == log_file.read_text().splitlines()
    assert token not in log
    assert main(["fleet", "revoke", str(folder), "pi-1"]) == 0
    capsys.readouterr()
    main(["fleet", "list", str(folder)])
    assert re.match(r"pi-1 +revoked", capsys.readouterr().out)
    main(["fleet", "list", str(folder), "--json"])
    assert [(each["name"], each["state"]) for each in json.loads(capsys.readouterr().out)] == [("pi-1", "revoked")]


def test_a_program_gets_json_from_every_step(tmp_path: Path, capsys: Captured) -> None:
    folder = str(tmp_path / "fleet")
    assert _init(tmp_path / "fleet", "--name", "watch", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["name"], made["authority"]) == ("watch", open_fleet(tmp_path / "fleet").pin.hex())
    assert main(["fleet", "invite", folder, "pi-1", "--json"]) == 0
    shown = capsys.readouterr()
    invited = json.loads(shown.out)
    assert shown.err == "", "no QR code"
    assert (read_token(invited["token"]).name, read_token(invited["token"]).address) == ("pi-1", made["join"])
    assert invited["expires"] > time.time()
    assert main(["fleet", "revoke", folder, "pi-1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "pi-1", "certificates": 0}


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["invite", "FLEET", "a/b"], "not a valid name"),
        (["revoke", "FLEET", "nobody"], "no device 'nobody'"),
        (["approve", "FLEET", "nobody", "0" * 16], "no device waits"),
        (["list", "NOWHERE"], "there is no fleet"),
        (["init", "FLEET", "--host", "h"], "holds a fleet already"),
        (["init", "NEW", "--host", "h", "--days", "0"], "cannot last 0 days"),
        (["init", "NEW", "--host", "h", "--name", "a/b"], "not a valid name"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, capsys: Captured, words: list[str], answer: str) -> None:
    folders = {"FLEET": str(tmp_path / "fleet"), "NOWHERE": str(tmp_path / "nowhere"), "NEW": str(tmp_path / "new")}
    assert _init(tmp_path / "fleet") == 0
    capsys.readouterr()
    assert main(["fleet", *(folders.get(word, word) for word in words)]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert answer in line


def test_a_broker_of_ones_own_is_shown_the_orchestrators_certificate(tmp_path: Path) -> None:
    _init(tmp_path / "fleet", "--name", "home")
    fleet = open_fleet(tmp_path / "fleet")
    given = parse_url(open_broker("mqtts://broker.example:1", tmp_path, fleet=fleet).url)
    assert (given.host, given.port) == ("broker.example", 1)
    assert (Path(given.ca), Path(given.cert)) == (fleet.file("ca.pem"), fleet.file("orchestrator.pem"))
    own = "mqtts://broker.example:1?ca=/ca.pem&cert=/mine.pem"
    assert open_broker(own, tmp_path, fleet=fleet).url == own


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        (["--listen", "0.0.0.0"], "spell out --insecure"),
        (["--fleet", "FLEET"], "give both the same name"),
        (["--fleet", "OWN", "--broker", "mqtt://127.0.0.1"], "speak TLS only"),
        (["--fleet", "OWN", "--broker", "embedded"], "no access rules"),
    ],
)
def test_serve_refuses_what_would_not_be_safe(
    tmp_path: Path, capsys: Captured, mosquitto_is_here: None, options: list[str], answer: str
) -> None:
    _init(tmp_path / "fleet", "--name", "other")
    _init(tmp_path / "own", "--name", "home")
    (tmp_path / "job.toml").write_text(job_text("home"))
    folders = {"FLEET": str(tmp_path / "fleet"), "OWN": str(tmp_path / "own")}
    where = [str(tmp_path / "job.toml"), "--state", str(tmp_path / "state"), "--broker", "managed"]
    capsys.readouterr()
    assert main(["serve", *where, *(folders.get(option, option) for option in options)]) != 0
    assert answer in capsys.readouterr().err.splitlines()[-1]
