"""A model that crashes, hangs or eats memory while it is tried: the device lives on, and says what it was."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from device_runtime import child, trial
from device_runtime.data import DataFolder
from device_runtime.deployed import Bounds
from device_runtime.deployment import deploy
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.memory import resident_bytes
from device_runtime.slots import Slots, models_in_use
from device_runtime.trial import Apart, Here, Question
from device_runtime.work import Where
from mas_edge.protocol.messages import HealthCheck, Plan, Report
from tests.device_runtime.one_device import ORCHESTRATOR
from tests.device_runtime.tiny_job import TASKS, tiny_data
from tests.inbox import until
from tests.security.small_model import Made, small_model

GOOD, BAD = small_model(1), small_model(2)
GROUP = "group-0"

# What a child runs in the place of the real one, when it opens the model of this digest; all else is the real code.
DEADLY = """\
import os, signal, sys, time
from device_runtime import deployed, trial
from mas_edge.protocol.artifact import digest_of

original = deployed.open_model
def opened(path, tasks):
    if digest_of(path.read_bytes()) == {digest!r}:
        {deed}
    return original(path, tasks)
deployed.open_model = opened
sys.exit(trial.main())
"""
DEEDS = {
    "it crashes": ("os.kill(os.getpid(), signal.SIGSEGV)", r"crashed the process that tried it \(SIGSEGV\)", True),
    "it aborts": ("os.abort()", r"crashed the process that tried it \(SIGABRT\)", True),
    "it ends the process": ("os._exit(3)", r"crashed the process that tried it \(exit code 3\)", True),
    "it hangs": ("time.sleep(600)", "did not end within", True),
    "it eats memory": ("held = bytearray(os.urandom(1)) * 2**30; time.sleep(600)", "of memory, .* are free", False),
    "the system kills it": ("os.kill(os.getpid(), signal.SIGKILL)", "most likely for its memory", False),
}


class Device:
    """A disk with a good model in use."""

    def __init__(self, folder: Path) -> None:
        self.store = ArtifactStore(folder / "artifacts")
        self.deployed = folder / "deployed"
        self.data: DataFolder = tiny_data(folder / "data", train=2, test=2)
        assert self.deploy(GOOD, "here").healthy

    def deploy(self, made: Made, where: Where = "apart") -> Report:
        golden = self.store.put(made.golden)
        plan = Plan(
            **ORCHESTRATOR, job="j", round_id="deploy-1", kind="deploy", group=GROUP, tasks=TASKS, deadline_s=60.0,
            program=self.store.put(made.model), health=HealthCheck(golden=golden, tolerance=1e-3, max_latency_s=5.0),
        )  # fmt: skip
        return deploy(plan, self.store, self.deployed, self.data, Apart(where))


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def does(monkeypatch: pytest.MonkeyPatch, deed: str) -> None:
    """From now on children that open the bad model do this."""
    code = DEADLY.format(digest=BAD.digest, deed=deed)
    monkeypatch.setattr(child, "command", lambda *_: [sys.executable, "-c", code])
    root = str(Path(trial.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", root)


@pytest.mark.parametrize("case", DEEDS)
def test_whatever_a_model_does_to_its_process_the_device_lives_and_says_it(
    device: Device, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deed, words, final = DEEDS[case]
    does(monkeypatch, deed)
    if case == "it hangs":
        monkeypatch.setattr(trial, "BASE_S", 4.0)
        monkeypatch.setattr(trial, "RUNS", 0)
    if case == "it eats memory":
        monkeypatch.setattr(trial, "available_bytes", lambda: 400 * 1024 * 1024)
    report = device.deploy(BAD)
    assert not report.healthy
    assert re.search(words, report.health_reason), report.health_reason
    assert report.model == GOOD.digest
    assert models_in_use(device.deployed) == {GROUP: GOOD.digest}
    assert bool(Slots(device.deployed / GROUP).refusal(BAD.digest)) is final
    if final:
        monkeypatch.undo()
        assert "refused before" in device.deploy(BAD).health_reason
    else:
        does(monkeypatch, "pass")
        assert device.deploy(BAD).healthy  # it was not to blame


def test_apart_and_here_come_to_the_same_answer(device: Device, tmp_path: Path) -> None:
    for name, made in (("one", BAD), ("two", Made(BAD.model, GOOD.golden))):
        (tmp_path / f"{name}.onnx").write_bytes(made.model)
        (tmp_path / f"{name}.golden").write_bytes(made.golden)
        question = Question(str(tmp_path / f"{name}.onnx"), str(tmp_path / f"{name}.golden"), Bounds(1e-3, 5.0))
        apart, here = Apart("apart").answer(question, device.data), Here().answer(question, device.data)
        assert apart.health is not None
        assert here.health is not None
        assert (apart.health.healthy, apart.health.reason) == (here.health.healthy, here.health.reason)
        assert apart.cpu_seconds > 0


@pytest.mark.parametrize(
    "short", [("memory", lambda: 10 * 1024 * 1024), ("processes", None)], ids=lambda short: str(short[0])
)
def test_without_memory_for_a_second_process_the_model_is_tried_in_the_agents(
    device: Device, short: tuple[str, Callable[[], int] | None], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    _, free = short
    if free:
        monkeypatch.setattr(trial, "available_bytes", free)
    else:
        monkeypatch.setattr(child, "command", lambda *_: ["/nowhere/python"])
    assert device.deploy(BAD, "auto").healthy
    assert "it is tried in the agent's" in caplog.text


def test_a_killed_agent_takes_its_trial_with_it_and_the_good_model_stays(device: Device, tmp_path: Path) -> None:
    """Killed twice in the middle of a trial, the model counts as one that the device did not survive."""
    mark = tmp_path / "mark"
    hang = f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    agent = f"""
import sys
from pathlib import Path
from device_runtime import child
from tests.security import test_trial as t
device = t.Device.__new__(t.Device)
device.store = t.ArtifactStore(Path({str(device.store.directory)!r}))
device.deployed = Path({str(device.deployed)!r})
device.data = t.tiny_data(Path({str(tmp_path)!r}) / "again", train=2, test=2)
code = t.DEADLY.format(digest=t.BAD.digest, deed={hang!r})
child.command = lambda *_: [sys.executable, "-c", code]
device.deploy(t.BAD)
"""
    root = str(Path(trial.__file__).parents[1])
    for _ in range(2):
        process = subprocess.Popen([sys.executable, "-c", agent], env={**os.environ, "PYTHONPATH": root})
        until(lambda: mark.exists() and bool(mark.read_text()))
        number = int(mark.read_text())
        process.kill()
        process.wait()
        until(lambda number=number: resident_bytes(number) == 0)  # type: ignore[misc]
        mark.unlink()
        assert models_in_use(device.deployed) == {GROUP: GOOD.digest}
    report = device.deploy(BAD)
    assert "each time the device did not survive" in report.health_reason
    assert report.model == GOOD.digest
