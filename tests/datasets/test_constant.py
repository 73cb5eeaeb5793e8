"""The best constant by brute force: none of a fine grid has a lower loss by the functions that networks train on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mas_edge.datasets.constant import constant_losses
from mas_edge.job import Data, Federation, Job, Task
from mas_edge.learning.losses import LOSSES

Array = NDArray[Any]
GRID = np.linspace(-3, 3, 601)
N = 23


def job_of(task: Task) -> Job:
    return Job(
        name="test", data=Data(input_shape=[2]), tasks=[task], federation=Federation(rounds=1, merge_rounds=1, groups=1)
    )


def write(folder: Path, task: Task, y: Array, mask: Array | None, test: Array) -> Path:
    folder.mkdir()
    lines = ["format = 1", "input_shape = [2]", "[tasks.t]", f'kind = "{task.kind}"', f"shape = {task.shape}"]
    if task.classes:
        lines += [f"classes = {task.classes}"]
    if task.element_mask:
        lines += ["element_mask = true"]
    (folder / "data.toml").write_text("\n".join(lines))
    np.save(folder / "x.npy", np.zeros((len(y), 2), np.float32))
    np.save(folder / "split.npy", test.astype(np.uint8))
    np.save(folder / "t.npy", y)
    if mask is not None:
        np.save(folder / "t.mask.npy", mask)
    return folder


def folders(tmp_path: Path, task: Task, y: Array, mask: Array | None) -> list[Path]:
    """Two folders that hold ``y`` as test samples, and train samples far away that must not count."""
    parts = []
    for name, rows in {"a": slice(0, 7), "b": slice(7, None)}.items():
        test = np.arange(len(y[rows]) + 2) >= 2
        far = np.zeros_like(y[:2]) if task.classes else np.full_like(y[:2], 99)
        held = None if mask is None else np.concatenate([np.ones_like(mask[:2]), mask[rows]])
        parts.append(write(tmp_path / name, task, np.concatenate([far, y[rows]]), held, test))
    return parts


def trained_loss(task: Task, output: Array, y: Array, mask: Array) -> float:
    """The loss of one output [classes or *shape] for every sample, by the function of mas_edge.learning."""
    constant = output if task.classes else output.reshape(task.shape)
    outputs = torch.tensor(np.broadcast_to(constant, (len(y), *constant.shape)).copy(), dtype=torch.float64)
    target = torch.tensor(y.astype(np.int64 if task.classes else np.float64))
    return float(LOSSES[task.loss_name](outputs, target, torch.tensor(mask, dtype=torch.float64)))


def directions() -> Iterable[Array]:
    for a, b in itertools.product(np.linspace(0, np.pi, 40), np.linspace(0, 2 * np.pi, 80)):
        yield np.array([np.sin(a) * np.cos(b), np.sin(a) * np.sin(b), np.cos(a)])


def logits() -> Iterable[Array]:
    for a, b in itertools.product(np.linspace(-3, 3, 41), repeat=2):
        yield np.array([a, b, 0.0])


def numbers() -> Iterable[Array]:
    return (np.array(value) for value in GRID)


CASES: dict[str, tuple[Task, Callable[[], Iterable[Array]], float]] = {
    "l1": (Task(name="t", kind="value", loss="l1"), numbers, 1e-6),
    "l1_all": (Task(name="t", kind="value", shape=[1], loss="l1_all"), numbers, 1e-6),
    "l2": (Task(name="t", kind="value", loss="l2"), numbers, 1e-4),
    "huber": (Task(name="t", kind="value", loss="huber"), numbers, 1e-4),
    "cosine": (Task(name="t", kind="direction", shape=[3]), directions, 2e-3),
    "cross_entropy": (Task(name="t", kind="class", classes=3), logits, 5e-3),
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_no_constant_of_a_grid_does_better_and_one_does_as_well(tmp_path: Path, case: str, masked: bool) -> None:
    task, grid, tolerance = CASES[case]
    rng = np.random.default_rng(5)
    if task.classes:
        y: Array = rng.choice(3, N, p=[0.6, 0.3, 0.1])
    else:
        # Numbers of the grid, so that the median is one of its points.
        y = rng.choice(GRID[100:450], (N, *task.shape)).astype(np.float32)
    mask = (rng.random(N) < 0.7).astype(np.uint8) if masked else np.ones(N, np.uint8)
    best = constant_losses(job_of(task), folders(tmp_path, task, y, mask if masked else None))["t"]
    brute = min(trained_loss(task, output, y, mask) for output in grid())
    assert brute - tolerance <= best <= brute + 1e-6


@pytest.mark.parametrize("loss", ["l1", "l1_all", "l2", "huber"])
def test_each_place_has_a_constant_of_its_own_and_masked_places_do_not_count(tmp_path: Path, loss: str) -> None:
    task = Task(name="t", kind="value", shape=[2], loss=loss, element_mask=True)
    y = np.array([[1, 50], [1, 50], [1, np.nan], [99, 50]], np.float32)
    mask = np.array([[1, 1], [1, 1], [1, 0], [0, 1]], np.uint8)
    folder = write(tmp_path / "a", task, np.concatenate([y, y]), np.concatenate([mask, mask]), np.repeat([0, 1], 4))
    assert constant_losses(job_of(task), [folder]) == {"t": 0.0}


def test_each_place_of_dense_classes_has_a_distribution_of_its_own(tmp_path: Path) -> None:
    task = Task(name="t", kind="dense_class", shape=[3], classes=3)
    # First place: always 2. Second: 0 or 1 evenly. Third: ignored half of the time, else 1.
    y = np.array([[2, 0, 1], [2, 1, -100], [2, 0, 1], [2, 1, -100]], np.int64)
    folder = write(tmp_path / "a", task, np.concatenate([y, y]), None, np.repeat([0, 1], 4))
    expected = 4 * np.log(2) / 10  # of ten valid places, four cost log 2
    assert constant_losses(job_of(task), [folder])["t"] == pytest.approx(expected)


def test_directions_at_several_places_have_a_mean_each(tmp_path: Path) -> None:
    task = Task(name="t", kind="direction", shape=[2, 2])
    y = np.zeros((4, 2, 2), np.float32)
    y[:, 0, 0] = 5  # the first place always points the same way, whatever the length
    y[:2, 0, 1], y[2:, 1, 1] = 1, 3  # the second to two sides, 90 degrees apart
    folder = write(tmp_path / "a", task, np.concatenate([y, y]), None, np.repeat([0, 1], 4))
    expected = (0 + 1 - np.sqrt(0.5)) / 2
    assert constant_losses(job_of(task), [folder])["t"] == pytest.approx(expected)


def test_tasks_without_test_labels_and_losses_of_ones_own_are_left_out(tmp_path: Path) -> None:
    own = Task(name="t", kind="value", loss="package:function")
    parts = folders(tmp_path, own, np.ones(N, np.float32), np.zeros(N, np.uint8))
    assert constant_losses(job_of(own), parts) == {}
    unlabelled = Task(name="t", kind="value")
    assert constant_losses(job_of(unlabelled), parts) == {}
    unheld = Task(name="u", kind="value")
    assert constant_losses(job_of(unheld), parts) == {}
