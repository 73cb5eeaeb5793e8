"""The process that ``mas-edge serve --http`` keeps beside it, on a real job with a real broker and real devices."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mas_edge.cli import build_parser, main
from mas_edge.cli.serve import ABORTED
from mas_edge.cli.web import beside_serve
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.orchestrator.broker.supervisor import free_port
from mas_edge.protocol.errors import ServerError
from mas_edge.web.beside import LOG
from mas_edge.web.tokens import TokenStore
from tests.e2e.fleet import Fleet, job_text, until
from tests.inbox import PATIENCE_S
from tests.web.conftest import Run

# The API without torch and without a broker's client: interpreter, web framework, numpy and what is known of a run.
MOST_RSS_BYTES = 100e6

pytestmark = [pytest.mark.mosquitto, pytest.mark.e2e]


def ask(port: int, method: str, path: str, body: object = None) -> Any:
    """The JSON of an answer; None while nobody listens there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
        return json.loads(connection.getresponse().read())
    except (ConnectionError, http.client.HTTPException):
        return None
    finally:
        connection.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[ManagedBroker]:
    with ManagedBroker(tmp_path / "broker") as broker:
        yield broker


def web_process(state: Path) -> int:
    """The process id of the API on this run."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"web" in words and str(state).encode() in words and b"mas_edge" in words:
                return int(entry.name)
    return 0


def test_a_job_is_held_started_followed_paused_and_aborted_and_survives_the_death_of_its_page(
    broker: ManagedBroker, tmp_path: Path
) -> None:
    port = free_port()
    with Fleet(broker.url, tmp_path, job_text(rounds=200, merge_rounds=100, min_devices=2)) as fleet:
        fleet.device("pi-1")
        fleet.device("pi-2")
        served = fleet.serve("--http", f"127.0.0.1:{port}", "--hold", "--log-json")

        def run() -> Any:
            return ask(port, "GET", "/api/run") or {}

        until(lambda: run().get("control") == "held" and run()["online"] == 2, "a run that waits, with its devices")
        assert run()["served"] is True
        assert run()["progress"]["merged"] == 0
        assert ask(port, "POST", "/api/job/orders", {"verb": "start"})["state"] == "waiting"
        until(lambda: run()["progress"]["merged"] >= 1, "a round")

        process = web_process(fleet.state)
        mapped = Path(f"/proc/{process}/maps").read_text()
        assert "libtorch" not in mapped
        status = Path(f"/proc/{process}/status").read_text()
        resident = int(status.partition("VmRSS:")[2].split()[0]) * 1024
        assert resident < MOST_RSS_BYTES
        os.kill(process, signal.SIGKILL)
        until(lambda: web_process(fleet.state) not in (0, process), "another process for the page")
        until(lambda: run().get("served") is True, "the page again")

        seen = run()["progress"]["merged"]
        until(lambda: run()["progress"]["merged"] > seen, "further rounds")
        assert ask(port, "POST", "/api/job/orders", {"verb": "pause"})["state"] == "waiting"
        until(lambda: run()["control"] == "paused" and not run()["open_rounds"], "the end of the open round")
        paused = run()["progress"]
        time.sleep(1.0)
        assert (run()["progress"], run()["open_rounds"]) == (paused, [])

        order = ask(port, "POST", "/api/job/orders", {"verb": "abort"})
        assert served.wait(PATIENCE_S) == ABORTED
        assert fleet.snapshot().phase == "aborted"
        assert order["verb"] == "abort"
        assert web_process(fleet.state) == 0, "the page ends with the orchestrator"
        lines = [json.loads(line) for line in (fleet.state / LOG).read_text().splitlines()]
        assert f"order {order['id']}: abort (this machine, from 127.0.0.1)" in [line["message"] for line in lines]
        assert not any("error" in line for line in lines), "a traceback"
        again = fleet.serve("--quiet")
        assert again.wait(PATIENCE_S) == ABORTED, "it stays aborted"


def test_the_process_imports_neither_torch_nor_a_brokers_client(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from mas_edge.web.server import make_app; make_app(Path(sys.argv[1])); "
        "heavy = {'torch', 'paho', 'onnx', 'onnxruntime', 'matplotlib'}; "
        "print(*sorted({module.split('.')[0] for module in sys.modules} & heavy))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--http", "0.0.0.0:8880"], "tokens would cross the network unencrypted"),
        (["--http", "nowhere"], "expected HOST:PORT"),
        (["--http", "127.0.0.1:0"], "expected HOST:PORT"),
        (["--http", "127.0.0.1:99999"], "expected HOST:PORT"),
        (["--http", "192.0.2.7:8880", "--http-cert", "missing.pem"], "--http-cert missing.pem cannot be used"),
    ],
)
def test_an_address_that_cannot_be_or_would_be_in_clear_text_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    assert main(["web", str(tmp_path), *options]) == ServerError.exit_code
    assert says in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "mas_edge", "web", str(tmp_path)]
        done = subprocess.run(
            [*command, "--http", f"127.0.0.1:{taken.getsockname()[1]}"],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
    assert done.returncode == ServerError.exit_code
    assert "choose another --http" in done.stderr
    assert "is shown at" not in done.stderr
    assert "Traceback" not in done.stderr


def test_beside_serve_nothing_is_said_to_be_shown_where_a_port_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        args = build_parser().parse_args(["serve", "job.toml", "--state", str(tmp_path), "--http", where])
        with pytest.raises(ServerError, match="cannot be listened on"), beside_serve(args):
            pytest.fail("it began")
    assert "is shown at" not in capsys.readouterr().err


@pytest.mark.parametrize(("asked", "is_there"), [("out", True), ("out/state", True), ("outt", False)])
def test_the_folder_of_a_demo_is_shown_and_one_without_a_run_says_so(
    tmp_path: Path, asked: str, is_there: bool
) -> None:
    Run(tmp_path / "out" / "state").close()
    port = free_port()
    command = [sys.executable, "-m", "mas_edge", "web", asked, "--http", f"127.0.0.1:{port}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stderr is not None
            lines = [process.stderr.readline()]
            if not is_there:
                assert lines[0].startswith(f"there is no run in {asked} yet")
                lines.append(process.stderr.readline())
            assert lines[-1].endswith(f"is shown at http://127.0.0.1:{port}/\n")
            until(lambda: ask(port, "GET", "/healthz") is not None, "an answer")
            assert (ask(port, "GET", "/api/run").get("status") != 503) is is_there
        finally:
            process.terminate()


def test_tokens_are_made_listed_and_revoked_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path)
    assert main(["token", run, "new", "grafana", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["role"] == "read"
    store = TokenStore(tmp_path)
    found = store.find(made["token"])
    assert found is not None
    assert main(["token", run, "--json"]) == 0
    assert [token["name"] for token in json.loads(capsys.readouterr().out)] == ["grafana"]
    assert main(["token", run, "new", "grafana"]) == ServerError.exit_code
    assert "revoke it first" in capsys.readouterr().err
    capsys.readouterr()
    assert main(["token", run, "revoke", "grafana", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "grafana", "revoked": True}
    assert store.all() == []
    store.close()
    assert main(["token", run, "revoke", "grafana"]) == ServerError.exit_code
    assert "there is no token 'grafana'" in capsys.readouterr().err
    assert main(["token", run]) == 0
    assert "no token yet: mas-edge token RUN new NAME" in capsys.readouterr().err


def test_a_job_is_told_to_pause_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path / "state")
    run.close()
    assert main(["job", str(run.directory), "pause"]) == 0
    assert "nobody serves this run now" in capsys.readouterr().out
    assert main(["job", str(run.directory), "--json"]) == 0
    [order] = json.loads(capsys.readouterr().out)["orders"]
    assert (order["verb"], order["answer"]) == ("pause", None)
    assert main(["job", str(tmp_path / "elsewhere")]) == ServerError.exit_code
