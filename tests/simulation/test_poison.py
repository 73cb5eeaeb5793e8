"""What malicious devices can do to a small job, by how its updates are aggregated: simulated runs, and margins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from mas_edge.federation.methods import with_method
from mas_edge.job import Job, Network, check, load_job
from mas_edge.orchestrator import view
from mas_edge.orchestrator.limits import Limits
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.protocol.errors import ServerError
from mas_edge.simulation.poison import ATTACKS, NOISE, SCALE, flip_labels, poisoner
from mas_edge.simulation.run import Simulation, honest
from tests.device_runtime import tiny_job
from tests.simulation.tiny import write_data, write_job

DEVICES = 7
LIARS = ("device-1", "device-4")  # 29 %
RULES: dict[str, dict[str, Any]] = {"mean": {}, "clip": {"clip_norm": "auto"}, "median": {"robust": "median"}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), DEVICES)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exports")


def job_of(directory: Path, rule: str) -> Job:
    """The tiny job on linear layers, all in one network, every device in every round."""
    job = with_method(load_job(write_job(directory)), "all-in-one")
    federation = msgspec.structs.replace(
        job.federation, rounds=4, merge_rounds=4, groups=1, devices_per_round=DEVICES, min_reports=3, **RULES[rule]
    )
    tasks = [msgspec.structs.replace(task, head=f"{tiny_job.__name__}:head") for task in job.tasks[:2]]
    network = Network(encoder=f"{tiny_job.__name__}:encoder")
    small = msgspec.structs.replace(job, tasks=tasks, network=network, federation=federation, engines=["torch"])
    return check(small)


class Bench:
    """Runs, each made once."""

    def __init__(self, directory: Path, data: Path, exports: Path) -> None:
        self._directory, self._data, self._exports = directory, data, exports
        self._rounds: dict[tuple[str, str], list[RoundRecord]] = {}

    def rounds(self, rule: str, attack: str = "") -> list[RoundRecord]:
        if (rule, attack) not in self._rounds:
            state = self._directory / f"{rule} {attack}"
            state.mkdir()
            (state / "exports").symlink_to(self._exports)
            tamper = poisoner(attack, LIARS) if attack else honest
            Simulation(job_of(state, rule), self._data, state, tamper=tamper).run()
            self._rounds[rule, attack] = view.read(state).rounds
        return self._rounds[rule, attack]

    def loss(self, rule: str, attack: str = "") -> float:
        """The mean over the tasks of the final test loss; infinite if the run broke."""
        try:
            self.rounds(rule, attack)
        except ServerError as error:
            assert "not finite" in str(error)
            return float("inf")
        last = next(record for record in reversed(self.rounds(rule, attack)) if record.kind == "evaluate")
        return float(np.mean(list(last.losses.values())))


@pytest.fixture(scope="module")
def bench(data: Path, exports: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("runs"), data, exports)


def test_two_liars_of_seven_ruin_a_mean(bench: Bench) -> None:
    assert bench.loss("mean", "scale") > 1.5 * bench.loss("mean")


# Every cell of this table is a run of seconds; tools/bench_poisoning.py has them all. None of it is clipping against a
# sign flip: a change of an honest length in a wrong direction is nothing that a bound on lengths can see.
HOLDS = [("clip", "scale"), ("median", "sign flip")]


@pytest.mark.parametrize(("rule", "attack"), HOLDS)
def test_two_liars_of_seven_do_little_to_a_robust_aggregation(bench: Bench, rule: str, attack: str) -> None:
    assert bench.loss(rule, attack) < 1.25 * bench.loss("mean")


def test_the_norms_of_the_changes_show_who_lies(bench: Bench) -> None:
    trained = [record for record in bench.rounds("clip", "scale") if record.kind == "train"]
    for record in trained:
        largest = sorted(record.norms, key=record.norms.__getitem__)[-len(LIARS) :]
        assert set(largest) == set(LIARS)
        assert record.norm_bound == pytest.approx(np.median(list(record.norms.values())))


def test_who_sends_what_is_refused_round_after_round_is_left_out_as_by_the_real_orchestrator(
    bench: Bench, data: Path, exports: Path, tmp_path: Path
) -> None:
    """The bound on the norm refuses a hundredfold change, and nobody honest."""
    rounds = bench.rounds("clip", "scale")
    longest = max(norm for record in rounds for device, norm in record.norms.items() if device not in LIARS)
    job = job_of(tmp_path, "mean")
    federation = msgspec.structs.replace(job.federation, max_norm=10 * longest)
    bounded = check(msgspec.structs.replace(job, federation=federation))
    (tmp_path / "exports").symlink_to(exports)
    Simulation(bounded, data, tmp_path, tamper=poisoner("scale", LIARS)).run()
    selected = [set(record.selected) for record in view.read(tmp_path).rounds if record.kind == "train"]
    strikes = Limits().quarantine_rounds
    assert all(set(LIARS) <= each for each in selected[:strikes])
    assert len(selected) > strikes
    assert all(not each & set(LIARS) for each in selected[strikes:])


def test_an_attack_changes_what_its_name_says() -> None:
    change, rng = np.array([3.0, -4.0], np.float32), np.random.default_rng(0)
    assert ATTACKS["sign flip"](change, rng).tolist() == [-3.0, 4.0]
    assert ATTACKS["scale"](change, rng).tolist() == [3.0 * SCALE, -4.0 * SCALE]
    assert np.linalg.norm(ATTACKS["noise"](change, rng)) == pytest.approx(5.0 * NOISE, rel=1e-5)


def test_false_labels_are_those_of_training_alone(tmp_path: Path) -> None:
    folder = write_data(tmp_path, 1) / "device-0"
    before = {name: np.load(folder / f"{name}.npy") for name in ("split", "level", "side")}
    flip_labels(folder)
    training = before["split"] == 0
    for name, false in (("level", -before["level"]), ("side", 1 - before["side"])):
        after = np.load(folder / f"{name}.npy")
        np.testing.assert_array_equal(after[training], false[training])
        np.testing.assert_array_equal(after[~training], before[name][~training])
        assert after.dtype == before[name].dtype
