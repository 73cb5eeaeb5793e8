"""A whole rollout over two boards and a Python device: in stages, halted by a board that is too small, and back.

Broker, orchestrator, boards and device are real processes. The int8 models were made before by the kit's converter
(``tests.export.micro.board_models``), which takes minutes; a script in its place hands them out.
"""

from __future__ import annotations

import re
import signal
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.micro import flash as _flash
from device_runtime.micro import int8 as _int8
from device_runtime.slots import models_in_use
from mas_edge.cli import main
from mas_edge.export.micro.deployable import VARIABLE
from mas_edge.federation.flow import JobState
from mas_edge.federation.rollout import place_of
from mas_edge.orchestrator.rollout_store import Remembered, remembered
from mas_edge.orchestrator.store import open_database
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.weights import Entry, Layout, pack
from tests.brokers import Running
from tests.e2e.fleet import PATIENCE_S, Fleet, until
from tests.micro.board import Board, configure, needs_micropython
from tests.micro.desk import DATA

pytestmark = [pytest.mark.e2e, needs_micropython]
flash: Any = _flash  # written for MicroPython, which has no types
int8: Any = _int8
NAMES = ("esp-large", "ada", "esp-small")  # in the order in which they get the model: see SEED
SEED = next(seed for seed in range(1000) if sorted(NAMES, key=lambda name: place_of(seed, name)) == list(NAMES))
STAGES = ("--to", "1%", "--then", "60%", "--then", "100%", "--soak", "0.5", "--seed", str(SEED))
INFER = {"esp-large": "", "esp-small": "tests.micro.scripts.crowded"}  # one has less memory left for a model
SHAPE, TASKS = (3, 8, 8), {"label": {"kind": "class", "classes": 3}, "down": {"kind": "direction"}}
GROUP = "group-0"
JOB = """\
name = "boards"
fleet = "{fleet}"
engines = ["onnxruntime"]

[data]
input_shape = [3, 8, 8]
calibration = "{data}"

[network]
encoder = "tests.micro.dense:encoder"
encoder_args = {{ width = 4 }}

[federation]
rounds = 1
merge_rounds = 1
groups = 1
devices_per_round = 1
min_devices = 1
batch_size = 8

[[tasks]]
name = "label"
kind = "class"
classes = 3
head = "tests.micro.dense:head"

[[tasks]]
name = "down"
kind = "direction"
shape = [3]
head = "tests.micro.dense:head"
"""


class Boards:
    """A run on three devices, whose orchestrator stays."""

    def __init__(self, url: str, directory: Path) -> None:
        data = write_data(directory / "data" / "ada")
        name = directory.name.replace("_", "-")[-40:]
        self.fleet = Fleet(url, directory, JOB.format(fleet=f"f-{name}", data=data))
        self.boards = {name: self._board(name) for name in INFER}

    def _board(self, name: str) -> Board:
        """One that answers only."""
        url, fleet = self.fleet.url, self.fleet.job.fleet
        folder = self.fleet.directory / name
        more: dict[str, Any] = {"tasks": TASKS, "input_shape": list(SHAPE), "train": False, "infer": INFER[name]}
        return Board(configure(folder, url, name, fleet, None, **more))

    def serve(self) -> None:
        self.serving = self.fleet.serve("--stay")

    def stop(self) -> None:
        self.serving.send_signal(signal.SIGINT)
        self.serving.wait(PATIENCE_S)

    def order(self, *words: str) -> None:
        """``mas-edge rollout`` as an operator types it."""
        assert main(["rollout", str(self.fleet.state), *words]) == 0

    def reaches(self, mode: str) -> Remembered:
        found: list[Remembered] = []

        def there() -> bool:
            found[:] = [kept for kept in [remembered(self.fleet.state)] if kept and kept.state.mode == mode]
            return bool(found)

        until(there, f"a rollout that is {mode}")
        return found[0]

    def in_use(self) -> dict[str, str]:
        """The digest of what each answers with."""
        found = {name: models_of(self.fleet.directory / name / "flash").get(GROUP, "") for name in INFER}
        return {**found, "ada": models_in_use(self.fleet.device_state("ada") / "deployed").get(GROUP, "")}

    def release(self, name: str) -> None:
        """Have the run hold other models of its group than it made: another .onnx by its digest, this for boards."""
        artifacts, db = ArtifactStore(self.fleet.state / "artifacts"), open_database(self.fleet.state)
        state = msgspec.json.decode(db.execute("SELECT state FROM job").fetchone()[0], type=JobState)
        group = state.groups[0]
        onnx = artifacts.put(artifacts.read(group.models["onnx"].artifact) + b"\x32\x01x")  # a doc_string
        board = artifacts.put((DATA / f"{name}.model").read_bytes())
        goldens = {**group.goldens, "int8": artifacts.put(golden_of(name))}
        group = msgspec.structs.replace(group, models={**group.models, "onnx": onnx, "int8": board}, goldens=goldens)
        state = msgspec.structs.replace(state, groups=[group])
        db.execute("UPDATE job SET state = ?", (msgspec.json.encode(state),))
        db.close()


def models_of(folder: Path) -> dict[str, str]:
    """By group, what a board's flash has in use."""
    found: dict[str, str] = {}
    for group, slots in flash.State(str(folder)).values.get("models", {}).items():
        found[group] = slots["digests"][slots["active"]] if slots["active"] else ""
    return found


def golden_of(name: str) -> bytes:
    """Golden samples of a stored model, with its own answers, which are LiteRT's (``test_int8``)."""
    model = int8.load(str(DATA / f"{name}.model"), list(TASKS))
    x = np.random.default_rng(0).standard_normal((4, *SHAPE), np.float32)
    answers = [model.run(array("f", sample.tobytes())) for sample in x]
    tensors = {"x": x} | {f"out.{task}": np.array([list(each[task]) for each in answers], np.float32) for task in TASKS}
    layout = Layout([Entry(name, list(tensor.shape), "golden", False) for name, tensor in tensors.items()])
    return pack(layout, np.concatenate([tensor.ravel() for tensor in tensors.values()]))


def write_data(folder: Path) -> Path:
    """Samples of both tasks, of which the first signal tells the answer."""
    folder.mkdir(parents=True)
    x = np.random.default_rng(1).standard_normal((40, *SHAPE), np.float32)
    down = x[:, 0, 0, :3] / np.linalg.norm(x[:, 0, 0, :3], axis=1, keepdims=True)
    arrays = {
        "x": x,
        "split": np.repeat(np.array([0, 1], np.uint8), [30, 10]),
        "label": np.arange(40) % 3,
        "down": down,
    }
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    header = 'format = 1\ninput_shape = [3, 8, 8]\n[tasks.label]\nkind = "class"\nclasses = 3\n'
    (folder / "data.toml").write_text(header + '[tasks.down]\nkind = "direction"\nshape = [3]\n')
    return folder


@pytest.fixture
def made(running_broker: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Boards]:
    script = tmp_path / "python-of-litert"
    (tmp_path / "golden").write_bytes(golden_of("small"))
    script.write_text(f'#!/bin/sh\ncp {DATA / "small.model"} "$3/model"\ncp {tmp_path / "golden"} "$3/golden"\n')
    script.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(script))
    made = Boards(running_broker.url, tmp_path)
    with made.fleet, made.boards["esp-large"], made.boards["esp-small"]:
        made.fleet.device_process("ada", engine="onnxruntime")
        yield made


def test_stages_reach_boards_a_small_board_halts_them_and_everybody_goes_back(made: Boards, tmp_path: Path) -> None:
    small, large = (digest_of((DATA / f"{name}.model").read_bytes()) for name in ("small", "large"))
    made.serve()
    until(lambda: made.fleet.snapshot().phase != "prepare", "the beginning of the job")
    made.order(*STAGES)
    complete = made.reaches("complete")
    assert {name: complete.standings[name][GROUP].stage for name in NAMES} == dict.fromkeys(NAMES, "healthy")
    first = made.in_use()
    assert [first[name] for name in INFER] == [small, small]
    made.stop()

    made.release("large")
    made.serve()
    made.order(*STAGES)
    halted = made.reaches("halted")
    standings = {name: halted.standings[name][GROUP] for name in NAMES}
    assert {name: standing.stage for name, standing in standings.items()} == {
        "esp-large": "healthy", "ada": "healthy", "esp-small": "failed",
    }  # fmt: skip
    assert standings["esp-large"].latency_s > 0
    assert "such as esp-small: the model does not fit: " in halted.state.reason
    assert re.search(r"free, \d+ bytes$", halted.state.reason)
    assert made.in_use() == {"esp-large": large, "ada": made.in_use()["ada"], "esp-small": small}
    assert made.in_use()["ada"] != first["ada"]
    assert not (tmp_path / "esp-small" / "flash" / f"{GROUP}.b").exists()  # no slot was written

    made.boards["esp-large"].power_off()  # one that is away goes back when it is there again
    made.order("rollback")
    until(lambda: made.in_use()["ada"] == first["ada"], "the way back of who is there")
    assert made.in_use()["esp-large"] == large
    made.boards["esp-large"].power_on()
    made.reaches("rolled_back")
    assert made.in_use() == first
    made.stop()
    assert "Traceback" not in made.fleet.log("serve.log")
    for board in made.boards.values():
        assert "mas-edge:" not in board.console  # nothing went wrong that a board says
