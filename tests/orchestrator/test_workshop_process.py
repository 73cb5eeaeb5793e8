"""The workshop in a process of its own: does what ``Steps`` does here, and may be killed at any moment."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation.flow import JobState, Local
from mas_edge.federation.supply import Wanted
from mas_edge.job import Data, Federation, Job, Network, Task
from mas_edge.orchestrator.steps import Steps
from mas_edge.orchestrator.workshop_process import ATTEMPTS, WorkshopProcess, open_workshop
from mas_edge.protocol.errors import EdgeError, JobError, ServerError
from tests.e2e.fleet import Actor, until

# What a user may keep beside the job file. ``held`` is at work, with a child of its own, while there is a file "hold".
NETS = """\
import logging, os, subprocess, sys, time
from pathlib import Path
from torch import nn

HERE = Path(__file__).parent

def encoder(input_shape):
    logging.getLogger("nets").warning("built by a process of its own: %s", os.getpid())
    return nn.Linear(input_shape[0], 4)

def held(input_shape):
    print("a word on standard output")
    os.write(1, b"and one past Python")
    if (HERE / "wrong").exists():
        raise ValueError("it cannot be built")
    if (HERE / "hold").exists():
        own = subprocess.Popen(["sleep", "600"])
        (HERE / "pids.new").write_text(f"{os.getpid()} {own.pid}")
        (HERE / "pids.new").rename(HERE / "pids")
        time.sleep(600)
    return nn.Linear(input_shape[0], 4)

def head(feature_shape, task):
    return nn.Linear(feature_shape[0], 1)
"""
STATE, PREPARE = JobState(run_id="j-1"), Local("prepare")


def job(encoder: str = "encoder") -> Job:
    return Job(
        name="j",
        data=Data(input_shape=[3]),
        tasks=[
            Task(name="a", kind="value", shape=[1], head="nets:head"),
            Task(name="b", kind="value", shape=[1], head="nets:head"),
        ],
        network=Network(encoder=f"nets:{encoder}"),
        federation=Federation(rounds=4, merge_rounds=2, batch_size=4),
        engines=["torch"],
    )


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a user's module, where this process looks for modules."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "nets.py").write_text(NETS)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("nets", None)


@pytest.fixture
def hold(nets: Path) -> Iterator[Path]:
    """While this file is there, a network that is built does not come to its end."""
    (nets / "pids").unlink(missing_ok=True)
    file = nets / "hold"
    file.touch()
    yield file
    file.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def one(nets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkshopProcess]:
    """A process for all tests that do no harm to it."""
    directory = tmp_path_factory.mktemp("one")
    found = WorkshopProcess(job(), directory / "artifacts", directory)
    found.warm()
    yield found
    found.close()


def here(directory: Path, encoder: str = "encoder") -> Steps:
    return Steps(job(encoder), ArtifactStore(directory / "artifacts"), directory)


def at_work(nets: Path) -> list[int]:
    """The workshop's process, and the one that it has started, once they are in the middle of it."""
    until((nets / "pids").exists, "a network that is being built")
    return [int(pid) for pid in (nets / "pids").read_text().split()]


def gone(pid: int) -> Callable[[], bool]:
    """Whether a process has ended, though perhaps nobody has asked for how."""

    def is_gone() -> bool:
        try:
            os.kill(pid, 0)
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (ProcessLookupError, FileNotFoundError):
            return True

    return is_gone


def test_it_makes_the_same_bytes_as_this_process(
    one: WorkshopProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state, split = one.take(PREPARE, STATE, [])
    said = [record for record in caplog.records if record.name == "nets"]
    assert said and all(
        (r.levelno, r.message) == (logging.WARNING, f"built by a process of its own: {one.pid}") for r in said
    )
    assert (state, split) == here(tmp_path).take(PREPARE, STATE, [])
    assert state.phase == "initial_evaluation"
    smaller = Wanted("merged", "program", "torch@2")
    assert one.provide(smaller, state) == here(tmp_path).provide(smaller, state)
    memory = one.provide(Wanted("merged", "memory"), state)
    assert memory == here(tmp_path).provide(Wanted("merged", "memory"), state)
    assert list(memory.memory["torch"]) == [4, 2, 1]


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (None, "no device measured an affinity"),
        (Wanted("merged", "model", "tflite"), "litert-export"),
    ],
)
def test_what_cannot_be_done_is_the_same_error_as_in_this_process(
    one: WorkshopProcess, tmp_path: Path, wanted: Wanted | None, text: str
) -> None:
    prepared, _ = one.take(PREPARE, STATE, [])
    raised = []
    (tmp_path / "artifacts").mkdir()
    for file in (one._artifacts).iterdir():
        (tmp_path / "artifacts" / file.name).write_bytes(file.read_bytes())
    for workshop in (here(tmp_path), one):
        with pytest.raises(EdgeError, match=text) as caught:
            workshop.provide(wanted, prepared) if wanted else workshop.take(Local("split"), prepared, [])
        raised.append((type(caught.value), str(caught.value)))
    assert raised[0] == raised[1]


def test_a_fault_of_ours_is_one_line_and_in_the_log_in_full(
    one: WorkshopProcess, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ServerError, match="making nobody memory  failed: StopIteration"):
        one.provide(Wanted("nobody", "memory"), STATE)
    assert "Traceback" in caplog.text
    assert one.take(PREPARE, STATE, [])[0].phase == "initial_evaluation", "the process goes on"


def test_what_a_killed_process_was_at_is_done_again(
    nets: Path, hold: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    workshop = WorkshopProcess(job("held"), tmp_path / "artifacts", tmp_path)
    taking = Actor(lambda _: workshop.take(PREPARE, STATE, []), "taking")
    first, own = at_work(nets)
    hold.unlink()
    os.kill(first, signal.SIGKILL)
    taken, printed = taking.join(), capfd.readouterr()
    assert ("a word on standard output" in printed.err, "past Python" in printed.err, printed.out) == (True, True, "")
    assert taken == here(tmp_path / "here", "held").take(PREPARE, STATE, [])
    assert workshop.pid != first
    assert gone(own)(), "what it had started is ended too"
    assert "ended (signal 9): step prepare is done again" in caplog.text
    workshop.close()


def test_a_process_that_is_killed_every_time_is_an_error_that_says_how(nets: Path, tmp_path: Path) -> None:
    workshop, killed = WorkshopProcess(job(), tmp_path / "artifacts", tmp_path), set[int]()

    def kill_each(stop: threading.Event) -> None:
        while not stop.wait(0.01):
            pid = workshop.pid
            if pid is not None and pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)

    killing = Actor(kill_each, "killing")
    with pytest.raises(ServerError, match=f"step prepare: .* ended {ATTEMPTS} times, at last by signal 9; .* memory"):
        workshop.take(PREPARE, STATE, [])
    killing.stop()
    assert len(killed) == ATTEMPTS
    workshop.close()


def test_whoever_leaves_in_the_middle_of_it_waits_for_nothing_and_leaves_nothing_half_written(
    nets: Path, hold: Path, tmp_path: Path
) -> None:
    workshop = WorkshopProcess(job("held"), tmp_path / "artifacts", tmp_path)
    taking = Actor(lambda _: workshop.take(PREPARE, STATE, []), "taking")
    pids = at_work(nets)
    workshop.close()
    with pytest.raises(ServerError, match="about to end"):
        taking.join()
    assert all(gone(pid)() for pid in pids)
    assert workshop.pid is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_process_ends_with_an_orchestrator_that_is_killed(nets: Path, hold: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        "from tests.orchestrator.test_workshop_process import PREPARE, STATE, WorkshopProcess, job\n"
        "where = Path(sys.argv[1])\n"
        "WorkshopProcess(job('held'), where / 'artifacts', where).take(PREPARE, STATE, [])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(nets), str(Path(__file__).parents[2])]
    with subprocess.Popen(command) as parent:
        child, own = at_work(nets)
        parent.kill()
    until(gone(child), "the end of the workshop's process")
    if not gone(own)():  # a user's own child; Linux ends the workshop before that could
        os.kill(own, signal.SIGKILL)


def test_a_process_that_has_nothing_to_do_ends_and_another_takes_the_next_order(nets: Path, tmp_path: Path) -> None:
    workshop = WorkshopProcess(job("held"), tmp_path / "artifacts", tmp_path, warm_s=0.2)
    workshop.warm()
    first = workshop.pid
    assert first is not None
    until(gone(first), "the end of an idle process")
    (nets / "wrong").touch()
    raised = []
    for each in (workshop, here(tmp_path, "held")):
        with pytest.raises(JobError, match=r"nets:held .* failed: ValueError: it cannot be built") as caught:
            each.take(PREPARE, STATE, [])
        raised.append(str(caught.value))
    assert raised[0] == raised[1]
    (nets / "wrong").unlink()
    workshop.close()


def test_a_process_of_its_own_is_for_who_holds_no_pytorch_and_for_functions_that_it_can_find(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    assert isinstance(open_workshop(job(), store, tmp_path), Steps), "this process has imported PyTorch"
    monkeypatch.delitem(sys.modules, "torch")
    assert isinstance(open_workshop(job(), store, tmp_path), WorkshopProcess)
    for key, changed in {
        "an encoder": replace(job(), network=Network(encoder="__main__:mine")),
        "a loss": replace(job(), tasks=[replace(job().tasks[0], loss="__main__:mine")]),
    }.items():
        assert isinstance(open_workshop(changed, store, tmp_path), Steps), key
