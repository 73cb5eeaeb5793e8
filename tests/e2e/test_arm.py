"""The device runtime on ARM: its real packages for the processor, one process at a time under an emulator.

Asked for with MAS_EDGE_ARM=aarch64 or armv7, as it fetches packages (``tools/arm_smoke.sh`` says which and where to)
and takes minutes. Numbers and behaviour count here; times under emulation say nothing. The programs of armv7 are
LiteRT's: these tests then run where the converter is.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from device_runtime.diagnosis import Diagnosis
from device_runtime.engines.verdict import SelfTest
from mas_edge.orchestrator.broker import ManagedBroker
from mas_edge.orchestrator.result import result_of
from tests.e2e.fleet import Fleet, job_text

pytestmark = [
    pytest.mark.skipif(
        not os.environ.get("MAS_EDGE_ARM"),
        reason="MAS_EDGE_ARM=aarch64 or armv7 asks for it: fetches packages for that processor and emulates a board",
    ),
    pytest.mark.timeout(1800),  # the first test fetches
]
SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "arm_smoke.sh"
BOARD = os.environ.get("MAS_EDGE_ARM", "aarch64")
ENGINES = {"aarch64": ["onnxruntime", "litert"], "armv7": ["litert"]}[BOARD]  # the first does the whole job
CHOSEN = ["--armv7"] if BOARD == "armv7" else []
LEAVE_S = 60  # a board that was told to stop says goodbye first


def start(*arguments: str, log: Path) -> subprocess.Popen[str]:
    """Start the emulated Python, or the script's own train step without arguments; what it says goes to ``log``."""
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("a") as errors:
        return subprocess.Popen(
            [str(SCRIPT), *CHOSEN, *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip


def said(*arguments: str, directory: Path) -> str:
    """What the emulated Python prints; it must end well."""
    log = directory / "errors.log"
    process = start(*arguments, log=log)
    output, _ = process.communicate()
    assert process.returncode == 0, output + log.read_text()
    return output


@pytest.mark.parametrize("arguments", [(), *(("-m", "device_runtime.engines.selftest", name) for name in ENGINES[1:])])
def test_a_train_step_gives_what_eager_gives(arguments: tuple[str, ...], tmp_path: Path) -> None:
    found = msgspec.json.decode(said(*arguments, directory=tmp_path).splitlines()[-1], type=SelfTest)
    assert found.error == ""  # all weights, momentum and losses within the self-test's tolerance
    assert found.engine == (arguments[-1] if arguments else ENGINES[0])
    assert found.step_cpu_ms > 0


def test_the_doctor_examines_the_board_and_not_the_machine_that_emulates_it(tmp_path: Path) -> None:
    found = msgspec.convert(json.loads(said("-m", "device_runtime", "doctor", "--json", directory=tmp_path)), Diagnosis)
    assert found.machine.architecture == {"aarch64": "aarch64", "armv7": "armv7l"}[BOARD]
    assert found.machine.python.startswith("3.11.")
    assert {report.name for report in found.engines if report.trains} == set(ENGINES)
    assert found.best in ENGINES


def test_a_board_alone_carries_out_a_whole_job(mosquitto: ManagedBroker, tmp_path: Path) -> None:
    job = f"engines = {ENGINES[:1]}\n" + job_text(rounds=2, merge_rounds=1, per_round=1, min_devices=1, deadline_s=300)
    with Fleet(mosquitto.url, tmp_path, job) as fleet:
        orchestrator = fleet.orchestrate()
        board = start(
            "-m", "device_runtime", "run", "--verbose", "--threads", "1", "--broker", fleet.url, "--name", "board",
            "--fleet", fleet.job.fleet, "--data", str(fleet.data("board")), "--state", str(fleet.device_state("board")),
            "--engine", ENGINES[0], log=tmp_path / "board.log",
        )  # fmt: skip
        try:
            assert orchestrator.join(timeout_s=1200) is True
            board.terminate()
            output, _ = board.communicate(timeout=LEAVE_S)
        finally:
            if board.poll() is None:
                os.killpg(board.pid, signal.SIGKILL)
                board.communicate()
        result = result_of(fleet.snapshot())
    assert (output.partition(":")[0], board.returncode) == (f"engine {ENGINES[0]}", 0)
    assert {record["outcome"] for record in result["rounds"]} == {"complete"}
    assert result["deployment"]["healthy"] == 1
