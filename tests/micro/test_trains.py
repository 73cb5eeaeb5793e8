"""The network of ``models/watch.toml`` on a board: it fits into 192 KB, and says the same with however little room."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from device_runtime.micro import head as _head
from device_runtime.micro import network as _network
from mas_edge.export.heads import _Weights, emit
from mas_edge.export.trace import trace_program
from mas_edge.job import load_job
from mas_edge.learning.network import build, vector_of
from mas_edge.protocol.program import Program, dump
from mas_edge.protocol.weights import Vector, pack
from tests.docs.pages import ROOT
from tests.micro.board import needs_micropython, run_script

head: Any = _head  # written for MicroPython, which has no types
network: Any = _network
JOB = load_job(ROOT / "models" / "watch.toml")
SHAPE, SAMPLES, TEST = (6, 64), 445, 12  # of one person of the watch's recordings; few of them for testing
LABELLED = 8  # train samples with a label: the others cost memory, and no time
KINDS = {"exercise": {"kind": "class", "classes": 7}, "gravity": {"kind": "direction"}, "rotation": {"kind": "value"}}


class Made:
    """A program, its weights, and the samples of a board."""

    def __init__(self, folder: Path) -> None:
        tasks = [task.name for task in JOB.tasks]
        self.program: Program = emit(trace_program(JOB, "merged", tasks, ["train_step", "evaluate"]), JOB)
        self.vector: Vector = vector_of(build(JOB, tasks))
        self.folder = folder
        (folder / "program").write_bytes(dump(self.program))
        (folder / "weights").write_bytes(pack(self.program.layout, self.vector))
        rng = np.random.default_rng(0)
        self.x = rng.standard_normal((SAMPLES, *SHAPE), np.float32)
        self.split = (np.arange(SAMPLES) < TEST).astype(np.uint8)
        seen = np.arange(SAMPLES) < TEST + LABELLED
        gravity, rotation = (rng.standard_normal((SAMPLES, 3), np.float32) for _ in range(2))
        self.labels = {
            "exercise": np.where(seen, rng.integers(0, 7, SAMPLES), -100),
            "gravity": np.where(seen[:, None], gravity, np.nan).astype(np.float32),
            "rotation": np.where(seen[:, None], rotation, np.nan).astype(np.float32),
        }
        arrays: dict[str, Any] = {"x": self.x, "split": self.split, **self.labels}
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)

    def on_a_board(self, **more: int) -> list[dict[str, Any]]:
        """What a board reports of an evaluation and of a training."""
        config = {
            "broker": "127.0.0.1", "fleet": "watch", "name": "esp", "state": str(self.folder / "flash"),
            "data": str(self.folder), "input_shape": list(SHAPE), "tasks": KINDS, "plan": self.program.tasks, **more,
        }  # fmt: skip
        (self.folder / "micro.json").write_text(json.dumps(config))
        names = (str(self.folder / name) for name in ("micro.json", "program", "weights"))
        return [json.loads(line) for line in run_script("trains", *names).splitlines()]

    def here(self) -> dict[str, float]:
        """The losses of the same evaluation by the same code, with memory without end."""
        made = network.Network(msgspec.to_builtins(self.program), _Weights(self.program, self.vector))
        report: dict[str, Any] = {}
        for _ in head.evaluate(made, Samples(self), {"tasks": self.program.tasks}, report):
            pass
        losses: dict[str, float] = report["losses"]
        return losses


class Samples:
    """What ``data.Folder`` says of them."""

    def __init__(self, made: Made) -> None:
        self._made = made

    def indices(self, split: int) -> list[int]:
        return [int(index) for index in np.flatnonzero(self._made.split == split)]

    def count(self, task: str, split: int) -> int:
        return sum(self.target(task, index) is not None for index in self.indices(split))

    def x(self, index: int) -> list[float]:
        return [float(number) for number in self._made.x[index].reshape(-1)]

    def target(self, task: str, index: int) -> Any:
        if task not in self._made.labels:
            return None
        label = self._made.labels[task][index]
        if task == "exercise":
            return int(label) if label >= 0 else None
        return [float(number) for number in label] if np.isfinite(label).all() else None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("watch"))


@needs_micropython
def test_a_board_evaluates_and_trains_three_tasks_of_the_watch(made: Made) -> None:
    evaluated, trained = made.on_a_board()
    assert set(evaluated["losses"]) == set(KINDS)
    assert evaluated["losses"] == pytest.approx(made.here(), rel=1e-5)
    assert set(trained["losses"]) == set(KINDS)
    assert all(np.isfinite(loss) for loss in trained["losses"].values())


@needs_micropython
def test_how_much_of_the_weights_there_is_room_for_changes_no_number(made: Made) -> None:
    """Weights without room are read row by row, layers' answers lie elsewhere: the update is the same to the bit."""
    assert made.on_a_board(arena=16 * 1024) == made.on_a_board(arena=36 * 1024)
