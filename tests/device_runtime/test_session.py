from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from numpy.typing import NDArray
from torch import nn

from device_runtime.data import DataFolder, open_data
from device_runtime.engines import open_engine
from device_runtime.engines.base import Runner
from device_runtime.outcome import Stopped
from device_runtime.session import evaluate, train
from mas_edge.export.trace import trace_program
from mas_edge.job import Data, Network, Task
from mas_edge.learning.losses import loss_of
from mas_edge.learning.metrics import metric_of
from mas_edge.learning.network import build, load_vector, vector_of
from mas_edge.protocol.errors import DataError, DeviceError, WeightsError
from mas_edge.protocol.messages import Training
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import Vector
from tests.device_runtime.tiny_job import TASKS, tiny_data, tiny_job

JOB = tiny_job()


class Recording:
    """The torch engine's runner, and what it was called with."""

    def __init__(self, program: Program) -> None:
        self.calls: list[tuple[str, dict[str, NDArray[Any]], dict[str, NDArray[Any]]]] = []
        self._runner: Runner = open_engine("torch").load(program)

    def run(self, method: str, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        results = self._runner.run(method, feeds)
        self.calls.append((method, dict(feeds), results))
        return results

    def order(self) -> list[str]:
        return [method for method, _, _ in self.calls]


class InOrder:
    """The batches of a folder in the order of the folder."""

    def __init__(self, folder: DataFolder) -> None:
        self._folder = folder

    def feeds(self, program: Program, split: Any, seed: int | None) -> Any:
        return self._folder.feeds(program, split, None)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On nets of this size threads only get into each other's way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def program() -> Program:
    return trace_program(JOB, "merged", TASKS)


@pytest.fixture
def runner(program: Program) -> Recording:
    return Recording(program)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return tiny_data(tmp_path_factory.mktemp("all"))


@pytest.fixture(scope="module")
def without_way(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return tiny_data(tmp_path_factory.mktemp("some"), holds_way=False)


def start() -> Vector:
    return vector_of(build(JOB, TASKS))


def training(epochs: int = 1, period: int = 0, rate: float = 0.05, **more: Any) -> Training:
    return Training(
        learning_rate=rate, momentum=0.9, weight_decay=0.01, local_epochs=epochs, seed=7,
        task_weights=dict.fromkeys(TASKS, 1.0), affinity_period=period, **more,
    )  # fmt: skip


def never() -> bool:
    return False


def test_training_takes_the_steps_of_torch_sgd(program: Program, runner: Recording, data: DataFolder) -> None:
    network = build(JOB, TASKS)
    sgd = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    for epoch in range(2):
        for batch in data.feeds(program, "train", 7 + epoch):
            feeds = {name: torch.from_numpy(array) for name, array in batch.items()}
            outputs = network(feeds["x"])
            losses = [
                loss_of(JOB.task(task))(outputs[task], feeds[f"y.{task}"], feeds[f"mask.{task}"]) for task in TASKS
            ]
            sgd.zero_grad()
            torch.stack(losses).sum().backward()
            sgd.step()
    trained, report = train(runner, program, start(), data, training(epochs=2), stop=never)
    np.testing.assert_allclose(trained, vector_of(network), rtol=1e-4, atol=1e-5)
    assert report.steps == 6  # ten samples in batches of four, twice


def test_training_leaves_the_weights_it_was_given(program: Program, runner: Recording, data: DataFolder) -> None:
    weights = start()
    trained, _ = train(runner, program, weights, data, training(), stop=never)
    np.testing.assert_array_equal(weights, start())
    assert not np.array_equal(trained, weights)


def test_the_same_seed_gives_the_same_weights(program: Program, runner: Recording, data: DataFolder) -> None:
    first, _ = train(runner, program, start(), data, training(), stop=never)
    again, _ = train(runner, program, start(), data, training(), stop=never)
    np.testing.assert_array_equal(first, again)


def test_training_lowers_the_losses(program: Program, runner: Recording, data: DataFolder) -> None:
    _, first = train(runner, program, start(), data, training(epochs=1), stop=never)
    _, last = train(runner, program, start(), data, training(epochs=10), stop=never)
    assert sum(last.losses.values()) < 0.5 * sum(first.losses.values())


def test_losses_are_means_of_the_last_epoch_by_labelled_samples(
    program: Program, runner: Recording, data: DataFolder
) -> None:
    _, report = train(runner, program, start(), data, training(epochs=2), stop=never)
    last = runner.calls[3:]
    for i, task in enumerate(TASKS):
        counts = [feeds[f"mask.{task}"].sum() for _, feeds, _ in last]
        losses = [results["losses"][i] for _, _, results in last]
        assert report.losses[task] == pytest.approx(np.average(losses, weights=counts))


def test_samples_are_the_labelled_train_samples(program: Program, runner: Recording, data: DataFolder) -> None:
    _, report = train(runner, program, start(), data, training(epochs=3), stop=never)
    assert report.samples == {task: data.counts()[task].train for task in TASKS} == {"sign": 6, "mean": 10, "way": 10}


def test_a_task_without_labels_has_no_samples_no_loss_and_a_head_that_decay_alone_moves(
    program: Program, runner: Recording, without_way: DataFolder
) -> None:
    trained, report = train(runner, program, start(), without_way, training(), stop=never)
    assert report.samples["way"] == 0
    assert set(report.losses) == {"sign", "mean"}
    network, fresh = build(JOB, TASKS), build(JOB, TASKS)
    load_vector(network, trained)
    ratios = [a / b for a, b in zip(network.heads["way"].parameters(), fresh.heads["way"].parameters(), strict=True)]
    assert all(torch.allclose(ratio, ratios[0].flatten()[0], atol=1e-5) for ratio in ratios)


@pytest.mark.parametrize(("period", "measured"), [(1, 6), (2, 3), (4, 2), (100, 1)])
def test_affinity_is_measured_before_every_periodth_step_of_the_round(
    program: Program, runner: Recording, data: DataFolder, period: int, measured: int
) -> None:
    _, report = train(runner, program, start(), data, training(epochs=2, period=period), stop=never)
    assert report.affinity_measurements == runner.order().count("affinity") == measured
    assert runner.order()[:2] == ["affinity", "train_step"]
    for (method, feeds, _), (following, after, _) in itertools.pairwise(runner.calls):
        if method == "affinity":
            assert following == "train_step"
            np.testing.assert_array_equal(feeds["x"], after["x"])
            np.testing.assert_array_equal(feeds["weights"], after["weights"])


def test_affinity_is_the_mean_of_the_measurements(program: Program, runner: Recording, data: DataFolder) -> None:
    _, report = train(runner, program, start(), data, training(epochs=2, period=2), stop=never)
    matrices = [results["affinity"] for method, _, results in runner.calls if method == "affinity"]
    np.testing.assert_allclose(np.array(report.affinity), np.mean(matrices, axis=0), rtol=1e-6)


def test_measuring_the_affinity_does_not_change_the_training(
    program: Program, runner: Recording, data: DataFolder
) -> None:
    plain, _ = train(runner, program, start(), data, training(), stop=never)
    measured, _ = train(runner, program, start(), data, training(period=1), stop=never)
    np.testing.assert_array_equal(plain, measured)


def test_no_measurement_is_not_an_affinity_of_zero(program: Program, runner: Recording, data: DataFolder) -> None:
    _, report = train(runner, program, start(), data, training(), stop=never)
    assert report.affinity is None
    assert report.affinity_measurements == 0
    assert "affinity" not in report.seconds


def test_pairs_with_a_task_without_labels_are_not_measured(
    program: Program, runner: Recording, without_way: DataFolder
) -> None:
    _, report = train(runner, program, start(), without_way, training(period=1), stop=never)
    matrix = np.array(report.affinity)
    assert [value is None for value in matrix.flat] == [False, False, True] * 2 + [True] * 3
    assert matrix[:2, :2].all()


def test_a_batch_without_labels_of_a_task_does_not_dilute_its_affinities(tmp_path: Path) -> None:
    tiny_data(tmp_path, train=8, test=1)
    np.save(tmp_path / "sign.mask.npy", np.array([1] * 4 + [0] * 4 + [1], np.uint8))
    folder = open_data(tmp_path)
    program = trace_program(JOB, "merged", TASKS)
    runner, batches = Recording(program), InOrder(folder)
    _, report = train(runner, program, start(), batches, training(period=1), stop=never)
    labelled = runner.calls[0][2]["affinity"]
    matrix = np.array(report.affinity)
    np.testing.assert_allclose(matrix[0], labelled[0], rtol=1e-6)
    assert not np.allclose(matrix[1, 2], labelled[1, 2])


def test_stop_is_asked_before_every_step_and_ends_the_training(
    program: Program, runner: Recording, data: DataFolder
) -> None:
    asked: Counter[str] = Counter()

    def stop() -> bool:
        asked["times"] += 1
        return asked["times"] > 2

    with pytest.raises(Stopped):
        train(runner, program, start(), data, training(epochs=5), stop=stop)
    assert runner.order() == ["train_step"] * 2


def test_stop_ends_an_evaluation(program: Program, runner: Recording, data: DataFolder) -> None:
    with pytest.raises(Stopped):
        evaluate(runner, program, start(), data, stop=lambda: True)
    assert runner.calls == []


def test_training_that_diverges_says_at_which_step_and_what_to_do(
    program: Program, runner: Recording, data: DataFolder
) -> None:
    with pytest.raises(DeviceError, match=r"diverged at step \d+: the \w+ are .*lower optimizer.learning_rate"):
        train(runner, program, start(), data, training(epochs=5, rate=1e30), stop=never)


def test_weights_that_are_not_finite_are_refused_before_they_are_kept(
    program: Program, runner: Recording, data: DataFolder
) -> None:
    weights = start()
    weights[0] = np.nan
    with pytest.raises(DeviceError, match="diverged at step 0"):
        train(runner, program, weights, data, training(), stop=never)
    with pytest.raises(DeviceError, match="batch 0: a loss or metric is not finite"):
        evaluate(runner, program, weights, data)


def test_weights_of_another_program_are_refused(program: Program, runner: Recording, data: DataFolder) -> None:
    with pytest.raises(WeightsError, match=r"expected weights of shape \(\d+,\) .* got \(3,\)"):
        train(runner, program, np.zeros(3, np.float32), data, training(), stop=never)


def test_a_device_without_labels_for_the_group_says_so(without_way: DataFolder) -> None:
    program = trace_program(JOB, "group", ["way"])
    weights = vector_of(build(JOB, ["way"]))
    with pytest.raises(DataError, match="no labelled train sample for way"):
        train(Recording(program), program, weights, without_way, training(), stop=never)


def test_evaluation_averages_over_the_labelled_test_samples(
    program: Program, runner: Recording, data: DataFolder
) -> None:
    report = evaluate(runner, program, start(), data)
    network = build(JOB, TASKS).eval()
    rows = data.arrays["split"] == 1
    with torch.no_grad():
        outputs = network(torch.from_numpy(data.arrays["x"][rows]))
    for task in TASKS:
        target, mask = torch.from_numpy(data.arrays[task][rows]), torch.from_numpy(data.labelled[task][rows]).float()
        expected = (
            loss_of(JOB.task(task))(outputs[task], target, mask),
            metric_of(JOB.task(task))(outputs[task], target, mask),
        )
        assert report.losses[task] == pytest.approx(float(expected[0]), rel=1e-5)
        assert report.metrics[task] == pytest.approx(float(expected[1]), rel=1e-5)
    assert report.samples == {task: data.counts()[task].test for task in TASKS}
    assert report.steps == 2  # six samples in batches of four


def test_evaluation_leaves_out_a_task_without_labels(
    program: Program, runner: Recording, without_way: DataFolder
) -> None:
    report = evaluate(runner, program, start(), without_way)
    assert set(report.losses) == set(report.metrics) == {"sign", "mean"}
    assert report.samples["way"] == 0


def test_seconds_are_counted_by_activity(program: Program, runner: Recording, data: DataFolder) -> None:
    _, report = train(runner, program, start(), data, training(period=1), stop=never)
    assert set(report.seconds) == {"train", "affinity"}
    assert all(seconds > 0 for seconds in report.seconds.values())
    assert report.cpu_seconds > report.affinity_cpu_seconds > 0
    _, unmeasured = train(runner, program, start(), data, training(), stop=never)
    assert unmeasured.affinity_cpu_seconds == 0
    assert set(evaluate(runner, program, start(), data).seconds) == {"evaluate"}


def test_a_proximal_term_pulls_towards_the_weights_of_the_round(data: DataFolder) -> None:
    program = trace_program(tiny_job(proximal_mu=1.0), "merged", TASKS)

    def moved(mu: float) -> float:
        trained, _ = train(Recording(program), program, start(), data, training(5, proximal_mu=mu), stop=never)
        return float(np.linalg.norm((trained - start())[: program.layout.trainable]))

    assert moved(5.0) < moved(0.0)


DENSE = replace(
    JOB,
    data=Data(input_shape=[2, 4]),
    tasks=[
        Task(name="kind", kind="dense_class", shape=[4], classes=3, head=f"{__name__}:dense_head"),
        Task(name="depth", kind="value", shape=[4], element_mask=True, head=f"{__name__}:dense_head"),
    ],
    network=Network(encoder=f"{__name__}:dense_encoder"),
)


def dense_encoder(input_shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Conv1d(input_shape[0], 5, 3, padding=1), nn.GroupNorm(1, 5), nn.ReLU())


def dense_head(feature_shape: tuple[int, ...], task: Task) -> nn.Module:
    layer = nn.Conv1d(feature_shape[0], task.classes or 1, 1)
    return layer if task.classes else nn.Sequential(layer, nn.Flatten(1))


@pytest.fixture(scope="module")
def dense_programs() -> dict[int, Program]:
    """The same network at several batch sizes."""
    jobs = {b: replace(DENSE, federation=replace(DENSE.federation, batch_size=b)) for b in (1, 2, 4, 8)}
    return {b: trace_program(job, "merged", ["kind", "depth"], ["train_step", "evaluate"]) for b, job in jobs.items()}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), count=st.integers(1, 9), share=st.sampled_from([0.2, 0.6, 1.0]))
def test_samples_losses_and_metrics_are_those_of_the_whole_data_whatever_the_batch(
    dense_programs: dict[int, Program], tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = {
        "x": rng.standard_normal((2 * count, 2, 4), np.float32),
        "split": np.repeat(np.array([0, 1], np.uint8), count),
        "kind": rng.choice([-100, 0, 1, 2], (2 * count, 4), p=[1 - share, *[share / 3] * 3]),
        "depth": rng.standard_normal((2 * count, 4), np.float32),
        "depth.mask": (rng.random((2 * count, 4)) < share).astype(np.uint8),
    }
    folder = tmp_path_factory.mktemp("dense")
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    (folder / "data.toml").write_text(
        'format = 1\ninput_shape = [2, 4]\n[tasks.kind]\nkind = "dense_class"\nshape = [4]\nclasses = 3\n'
        '[tasks.depth]\nkind = "value"\nshape = [4]\nelement_mask = true\n'
    )
    data, weights = open_data(folder), vector_of(build(DENSE, ["kind", "depth"]))
    reports = {}
    for batch, each in dense_programs.items():
        reports[batch] = evaluate(open_engine("torch").load(each), each, weights, data)
        assert reports[batch].batch_size == batch
    whole = reports[8]
    for report in reports.values():
        assert report.samples == whole.samples
        assert report.losses == pytest.approx(whole.losses, rel=1e-4, abs=1e-6)
        assert report.metrics == pytest.approx(whole.metrics, rel=1e-4, abs=1e-6)
    valid = arrays["depth.mask"][count:] > 0
    if valid.any():
        with torch.no_grad():
            network = build(DENSE, ["kind", "depth"]).eval()
            out = network(torch.from_numpy(arrays["x"][count:]))["depth"].numpy()
        assert whole.losses["depth"] == pytest.approx(
            float(np.abs(out - arrays["depth"][count:])[valid].mean()), rel=1e-4
        )


def test_a_smaller_batch_counts_the_same_samples_and_takes_more_steps(
    tmp_path: Path,
) -> None:
    found = {}
    for batch in (2, 4):
        job = tiny_job(batch)
        each = trace_program(job, "merged", TASKS, ["train_step"])
        data = tiny_data(tmp_path / str(batch))
        _, found[batch] = train(
            open_engine("torch").load(each), each, vector_of(build(job, TASKS)), data, training(), stop=lambda: False
        )
    assert found[2].samples == found[4].samples
    assert (found[2].steps, found[4].steps) == (5, 3)
