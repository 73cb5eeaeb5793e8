"""An orchestrator and its workshop, as real processes: memory, kills, and leaving in the middle of an export."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.orchestrator import view
from mas_edge.orchestrator.broker import EmbeddedBroker
from mas_edge.protocol.weights import unpack
from mas_edge.simulation.single import simulate_job
from tests.e2e.fleet import PATIENCE_S, Actor, Fleet, job_text, until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes as Linux shows them")

DEVICES = ("ada", "bob", "cyd")
MB = 10**6
# Of an orchestrator beside twice its model, which is 6 KB here. One that imported PyTorch, to export, held 360 MB.
MOST_BYTES = 100 * MB
HELD = """\
import time
from pathlib import Path

def encoder(input_shape):
    Path(__file__).with_name("at-work").touch()
    time.sleep(600)
"""


def children(pid: int) -> list[int]:
    """The processes that one has started."""
    try:
        files = list(Path(f"/proc/{pid}/task").glob("*/children"))
        return [int(child) for file in files for child in file.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_the_orchestrator_never_holds_pytorch_and_a_job_goes_on_whenever_its_workshop_is_killed(
    embedded_broker: EmbeddedBroker, tmp_path: Path
) -> None:
    text = 'engines = ["torch"]\nseed = 5\n' + job_text(rounds=2, merge_rounds=1, per_round=3)
    killed: list[int] = []
    with Fleet(embedded_broker.url, tmp_path, text, anew=True) as fleet:
        for name in DEVICES:
            fleet.device(name)
        server = fleet.serve("--stay")

        def kill_the_first_two(stop: threading.Event) -> None:
            """One before anything is made, one where the split is about to be, or is being, made."""
            while len(killed) < 2 and not stop.wait(0.02):
                is_time = not killed or "split" in fleet.log("serve.log")
                for pid in children(server.pid) if is_time else []:
                    if pid not in killed:
                        killed.append(pid)
                        os.kill(pid, signal.SIGKILL)

        killing = Actor(kill_the_first_two, "killing")
        done = fleet.finish()
        killing.stop()
        maps, status = (Path(f"/proc/{server.pid}/{name}").read_text() for name in ("maps", "status"))
        [workshop] = children(server.pid)
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0
        until(lambda: ended(workshop), "the end of the workshop's process")

        simulate_job(fleet.job, tmp_path / "data", tmp_path / "simulated")
        simulated, artifacts = view.read(tmp_path / "simulated"), ArtifactStore(tmp_path / "simulated" / "artifacts")
        models = {path.stem: path.read_bytes() for path in (fleet.state / "models").glob("*.safetensors")}
        log = fleet.log("serve.log")

    assert len(killed) == 2
    assert "ended (signal 9): step prepare is done again" in log
    assert "libtorch" not in maps and "onnxruntime" not in maps
    most = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    assert most <= MOST_BYTES, f"it held {most / MB:.0f} MB"
    assert done.split is not None and simulated.split is not None
    assert (len(models), done.split.groups) == (2, simulated.split.groups)
    for group, found in models.items():
        last = [record for record in simulated.rounds if record.group == group and record.kind == "train"][-1]
        wanted = unpack(artifacts.read(last.weights))
        assert all(np.allclose(tensor, wanted[name], rtol=0, atol=1e-5) for name, tensor in unpack(found).items())
    assert not list(fleet.state.rglob("*.tmp")) + list(fleet.state.rglob("*.new"))


def test_ctrl_c_in_the_middle_of_an_export_waits_for_nothing(embedded_broker: EmbeddedBroker, tmp_path: Path) -> None:
    (tmp_path / "held.py").write_text(HELD)
    text = job_text().replace("encoder_args = { width = 8 }", 'encoder = "held:encoder"')
    with Fleet(embedded_broker.url, tmp_path, text) as fleet:
        server = fleet.serve()
        until((tmp_path / "at-work").exists, "an export")
        [workshop] = children(server.pid)
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE_S) == 130
        assert ended(workshop)
        assert "Traceback" not in fleet.log("serve.log")
        assert fleet.snapshot().phase == "prepare", "the next orchestrator goes on here"
