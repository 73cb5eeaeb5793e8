"""A model that crashes, hangs or eats memory while it is tried: the device lives on, and says what it was."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device_runtime import child, trial_process
from device_runtime.data import DataFolder
from device_runtime.deployed import Bounds
from device_runtime.deployment import deploy
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.memory import resident_bytes
from device_runtime.slots import Slots, models_in_use
from device_runtime.trial import Check, Here
from device_runtime.trial_process import Apart
from mas_edge.protocol.messages import HealthCheck, Plan, Report
from tests.device_runtime.one_device import ORCHESTRATOR
from tests.device_runtime.tiny_job import TASKS, tiny_data
from tests.inbox import until
from tests.security.small_model import Made, small_model

GOOD, BAD, NEXT = small_model(1), small_model(2), small_model(3)
GROUP, OTHER = "group-0", "group-1"

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
        self.apart = Apart("apart")
        assert self.deploy(GOOD, Apart("here")).healthy

    def deploy(
        self, made: Made, examiner: Apart | None = None, group: str = GROUP, memory: int = 0, slowdown: float = 0.0
    ) -> Report:
        golden = self.store.put(made.golden)
        plan = Plan(
            **ORCHESTRATOR, job="j", round_id="deploy-1", kind="deploy", group=group, tasks=TASKS, deadline_s=60.0,
            program=self.store.put(made.model), health=HealthCheck(
                golden=golden, tolerance=1e-3, max_latency_s=5.0, max_memory_bytes=memory, max_slowdown=slowdown
            ),
        )  # fmt: skip
        return deploy(plan, self.store, self.deployed, self.data, examiner or self.apart)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path)
    yield device
    device.apart.close()


def does(monkeypatch: pytest.MonkeyPatch, deed: str, made: Made = BAD) -> list[str]:
    """From now on children that open the bad model do this. Returns what grows by one with each child."""
    code, started = DEADLY.format(digest=made.digest, deed=deed), list[str]()

    def command(module: str) -> list[str]:
        started.append(module)
        return [sys.executable, "-c", code]

    monkeypatch.setattr(child, "command", command)
    root = str(Path(trial_process.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", root)
    return started


@pytest.mark.parametrize("case", DEEDS)
def test_whatever_a_model_does_to_its_process_the_device_lives_and_says_it(
    device: Device, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deed, words, final = DEEDS[case]
    does(monkeypatch, deed)
    if case == "it hangs":
        monkeypatch.setattr(trial_process, "BASE_S", 4.0)
        monkeypatch.setattr(trial_process, "RUNS", 0)
    if case == "it eats memory":
        monkeypatch.setattr(trial_process, "available_bytes", lambda: 400 * 1024 * 1024)
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


# What a healthy model may leave behind in the process that tried it, before the next one comes.
LEGACIES = {
    "nothing": ("pass", 1),
    "a crash": ("deployed.open_model = lambda *_: os.abort()", 2),
    "no more end": ("deployed.open_model = lambda *_: time.sleep(600)", 2),
    "its memory": ("trial.legacy = bytearray(os.urandom(1)) * 2**28", 2),
    "a wrong answer": ("deployed.open_model = lambda *_: original(path, ['no', 'such', 'task'])", 2),
}


@pytest.mark.parametrize("legacy", LEGACIES)
def test_one_process_tries_the_models_of_all_groups_and_none_is_refused_for_another(
    device: Device, legacy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deed, processes = LEGACIES[legacy]
    started = does(monkeypatch, deed)
    if legacy == "no more end":
        monkeypatch.setattr(trial_process, "BASE_S", 4.0)
        monkeypatch.setattr(trial_process, "RUNS", 0)
    assert device.deploy(BAD).healthy
    report = device.deploy(NEXT, group=OTHER, memory=2**27)
    assert report.healthy, report.health_reason
    assert len(started) == processes
    assert models_in_use(device.deployed) == {GROUP: BAD.digest, OTHER: NEXT.digest}


def test_a_model_that_crashes_after_another_is_refused_alone_and_the_next_is_tried_in_a_new_process(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = does(monkeypatch, "os.abort()")
    assert device.deploy(NEXT).healthy
    assert "crashed" in device.deploy(BAD, group=OTHER).health_reason
    assert len(started) == 2  # the second has tried the bad model alone
    assert device.deploy(GOOD, group=OTHER).healthy
    assert models_in_use(device.deployed) == {GROUP: NEXT.digest, OTHER: GOOD.digest}
    assert len(started) == 3


def test_an_engine_that_crashes_while_it_is_loaded_is_not_the_fault_of_the_model(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, "pass")
    code = DEADLY.format(digest="", deed="pass").replace(
        "sys.exit(", "trial.open_engine = lambda _: os.abort()\nsys.exit("
    )
    monkeypatch.setattr(child, "command", lambda _: [sys.executable, "-c", code])
    assert re.search(r"onnxruntime.* does not start: .*SIGABRT", device.deploy(BAD).health_reason)
    monkeypatch.undo()
    assert device.deploy(BAD).healthy


def test_what_the_model_in_use_does_while_its_speed_is_taken_is_not_what_the_new_one_is(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, "os.abort()", GOOD)
    assert device.deploy(BAD, slowdown=10.0).healthy
    assert models_in_use(device.deployed) == {GROUP: BAD.digest}


def test_apart_and_here_come_to_the_same_answer(device: Device, tmp_path: Path) -> None:
    for name, made in (("one", BAD), ("two", Made(BAD.model, GOOD.golden))):
        (tmp_path / f"{name}.onnx").write_bytes(made.model)
        (tmp_path / f"{name}.golden").write_bytes(made.golden)
        question = Check(str(tmp_path / f"{name}.onnx"), str(tmp_path / f"{name}.golden"), Bounds(1e-3, 5.0))
        apart, here = device.apart.answer(question, device.data), Here().answer(question, device.data)
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
        monkeypatch.setattr(trial_process, "available_bytes", free)
    else:
        monkeypatch.setattr(child, "command", lambda *_: ["/nowhere/python"])
    assert device.deploy(BAD, Apart("auto")).healthy
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
device.apart = t.Apart("apart")
device.data = t.tiny_data(Path({str(tmp_path)!r}) / "again", train=2, test=2)
code = t.DEADLY.format(digest=t.BAD.digest, deed={hang!r})
child.command = lambda *_: [sys.executable, "-c", code]
device.deploy(t.BAD)
"""
    root = str(Path(trial_process.__file__).parents[1])
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
