"""Whole jobs in one process: every method to its end, the same numbers again, stopped and gone on; what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from mas_edge.datasets.constant import constant_losses
from mas_edge.federation.flow import JobState
from mas_edge.federation.methods import names
from mas_edge.job import Job, Network, load_job
from mas_edge.orchestrator import view
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.protocol.errors import DataError, EdgeError, JobError, ServerError
from mas_edge.protocol.messages import FromDevice, Plan
from mas_edge.simulation.fleet import VirtualDevice, device_folders
from mas_edge.simulation.run import Simulation
from mas_edge.simulation.single import simulate_job, simulated_job
from tests.device_runtime import tiny_job
from tests.simulation.tiny import write_data, write_job

DEVICES = 3
TASKS = ["level", "side", "spread"]
FOUR_ROUNDS = [("rounds = 2\nmerge_rounds = 1", "rounds = 4\nmerge_rounds = 2")]


class PowerCutError(Exception):
    """The power went."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), DEVICES)


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was exported and verified, for all runs of this module: most train the same networks."""
    return tmp_path_factory.mktemp("exports")


@pytest.fixture
def state(tmp_path: Path, exports: Path) -> Path:
    return new_state(tmp_path / "state", exports)


def new_state(directory: Path, exports: Path) -> Path:
    directory.mkdir()
    (directory / "exports").symlink_to(exports)
    return directory


def tiny(directory: Path, *changes: tuple[str, str]) -> Job:
    """The tiny job on networks of one linear layer each, which are traced in no time."""
    job = load_job(write_job(directory, *changes))
    tasks = [msgspec.structs.replace(task, head=f"{tiny_job.__name__}:head") for task in job.tasks]
    return msgspec.structs.replace(job, tasks=tasks, network=Network(encoder=f"{tiny_job.__name__}:encoder"))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Two merged rounds and two after them."""
    return simulated_job(tiny(tmp_path_factory.mktemp("job"), *FOUR_ROUNDS), "mas-2")


@pytest.fixture(scope="module")
def whole(job: Job, data: Path, exports: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The result of a run that nobody stopped, and its state."""
    state = new_state(tmp_path_factory.mktemp("whole") / "state", exports)
    return simulate_job(job, data, state), state


def weights_of(state: Path) -> dict[str, str]:
    """By training round, the digest of the weights that came out of it: equal bits, equal digests."""
    return {record.round_id: record.weights for record in view.read(state).rounds if record.kind == "train"}


def numbers_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """What must not differ between two runs; seconds and the run's name may."""
    keys = ("evaluation", "affinity", "split", "split_push", "constant_loss")
    return {key: result[key] for key in keys}


# ---------------------------------------------------------------------- every method

OFFERED = [name.replace("-N", "-2") for name in names()]
GROUPS = {"one-by-one": 3, "all-in-one": 1, "gradnorm": 1, "fedprox": 1, "standalone": 1, "every-2": 6}


@pytest.mark.parametrize("method", OFFERED)
def test_every_method_runs_to_its_end_and_answers_for_every_task(
    method: str, data: Path, tmp_path: Path, state: Path
) -> None:
    job = simulated_job(tiny(tmp_path), method)
    result = simulate_job(job, data, state)
    outcome = result["outcome"]
    assert (result["phase"], result["done"]) == ("export", False), "nothing is deployed"
    assert set(outcome["tasks"]) == set(TASKS)
    assert set(result["evaluation"]["split"]) == set(TASKS)
    assert all(each["samples"] == 8 * DEVICES for each in result["evaluation"]["split"].values())
    groups = result["split"]["groups"]
    assert {task for group in groups for task in group} == set(TASKS)
    if method in GROUPS:
        assert len(groups) == GROUPS[method]
    assert outcome["train_seconds"] > 0
    assert outcome["energy_joules"] > 0
    assert outcome["multiply_accumulates"] > 0
    assert min(outcome["bytes_down"], outcome["bytes_up"]) > 0
    assert (result["affinity"] is not None) == method.startswith(("mas", "worst", "every", "scratch", "tag"))
    assert (outcome["affinity_multiply_accumulates"] > 0) == (result["affinity"] is not None)
    assert (outcome["affinity_seconds"] > 0) == (result["affinity"] is not None)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert [record.outcome for record in view.read(state).rounds] == ["complete"] * len(result["rounds"])


def test_one_by_one_pays_an_encoder_for_each_task(job: Job, data: Path, tmp_path: Path, exports: Path) -> None:
    costs = {
        method: simulate_job(simulated_job(job, method), data, new_state(tmp_path / method, exports))["outcome"]
        for method in ("all-in-one", "one-by-one")
    }
    more = costs["one-by-one"]["multiply_accumulates"] / costs["all-in-one"]["multiply_accumulates"]
    assert 1.5 < more < len(TASKS)


def test_standalone_devices_train_by_themselves_and_speak_for_all_together(
    data: Path, tmp_path: Path, state: Path
) -> None:
    job = simulated_job(tiny(tmp_path), "standalone")
    simulate_job(job, data, state)
    rounds = view.read(state).rounds
    for number in range(DEVICES):
        own = [record for record in rounds if record.group == f"group-{number}"]
        assert {tuple(record.selected) for record in own} == {(f"device-{number}",)}
        assert {record.kind for record in own} == {"train", "evaluate"}


def test_groups_that_are_regrouped_go_through_the_merged_network_again(data: Path, tmp_path: Path, state: Path) -> None:
    """Round 0 merged, 1 and 2 in groups, 3 merged, 4 and 5 in groups."""
    job = tiny(tmp_path, ("rounds = 2", "rounds = 6"), ("[affinity]", "[method]\nregroup_rounds = 2\n\n[affinity]"))
    result = simulate_job(simulated_job(job), data, state)
    trained = [record for record in view.read(state).rounds if record.kind == "train"]
    assert [record.index for record in trained if record.group == "merged"] == [0, 3]
    for group in ("group-0", "group-1"):
        assert [record.index for record in trained if record.group == group] == [1, 2, 4, 5]
    assert set(result["evaluation"]["split"]) == set(TASKS)


# ---------------------------------------------------------------------- the numbers of one run


def test_the_result_counts_every_round(whole: tuple[dict[str, Any], Path], job: Job) -> None:
    result, _ = whole
    trained = [record for record in result["rounds"] if record["kind"] == "train"]
    assert [record["group"] for record in trained].count("merged") == 2
    assert len(trained) == 2 + 2 * 2
    for name, phase in result["phases"].items():
        rounds = [record for record in result["rounds"] if record["phase"] == name]
        assert phase["sent_bytes"] == sum(record["sent_bytes"] for record in rounds) > 0
        assert phase["received_bytes"] == sum(record["received_bytes"] for record in rounds) > 0
        assert phase["device_cpu_seconds"] > 0
    assert result["phases"]["merge"]["affinity_cpu_seconds"] > 0
    assert result["phases"]["groups"]["affinity_cpu_seconds"] == 0
    assert result["job"]["engines"] == ["torch"]
    assert set(result["devices"]) == {f"device-{number}" for number in range(DEVICES)}


def test_the_split_push_carries_graphs_and_no_weights(whole: tuple[dict[str, Any], Path]) -> None:
    push = whole[0]["split_push"]
    assert push["weights_bytes"] == 0
    assert push["program_bytes"] > 0


def test_losses_are_held_against_the_best_constants_of_the_same_folders(
    whole: tuple[dict[str, Any], Path], job: Job, data: Path
) -> None:
    result, _ = whole
    assert result["constant_loss"] == constant_losses(job, device_folders(data))
    task = result["outcome"]["tasks"]["level"]
    assert task["normalised"] == pytest.approx(task["loss"] / result["constant_loss"]["level"])
    assert task["raw"] == pytest.approx(2.0 * task["loss"]), "its unit is 2"


def test_a_method_that_measures_affinity_learns_what_it_was_trained_for(
    whole: tuple[dict[str, Any], Path],
) -> None:
    result, _ = whole
    assert np.array(result["affinity"]["matrix"]).shape == (3, 3)
    before, after = result["evaluation"]["initial"], result["evaluation"]["split"]
    assert sum(after[task]["loss"] for task in TASKS) < sum(before[task]["loss"] for task in TASKS)


# ---------------------------------------------------------------------- again


def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_one_does_not(
    whole: tuple[dict[str, Any], Path], job: Job, data: Path, tmp_path: Path, exports: Path
) -> None:
    result, done = whole
    same, other = new_state(tmp_path / "same", exports), new_state(tmp_path / "other", exports)
    again = simulate_job(job, data, same)
    assert weights_of(same) == weights_of(done)
    assert numbers_of(again) == numbers_of(result)
    simulate_job(simulated_job(job, seed=job.seed + 1), data, other)
    assert not set(weights_of(other).values()) & set(weights_of(done).values())


def test_programs_that_were_verified_before_change_nothing(
    whole: tuple[dict[str, Any], Path], job: Job, data: Path, tmp_path: Path
) -> None:
    """All other runs here find theirs; this one exports everything anew."""
    simulate_job(job, data, tmp_path / "anew")
    assert weights_of(tmp_path / "anew") == weights_of(whole[1])


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_a_run_that_was_stopped_between_two_steps_goes_on_to_the_same_weights(
    steps: int, whole: tuple[dict[str, Any], Path], job: Job, data: Path, tmp_path: Path, state: Path
) -> None:
    result, done = whole
    left = steps

    def stop(_: JobState) -> None:
        nonlocal left
        left -= 1
        if not left:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        simulate_job(job, data, state, progress=stop)
    assert len(weights_of(state)) < len(weights_of(done))
    gone_on = simulate_job(job, data, state)
    assert weights_of(state) == weights_of(done)
    assert numbers_of(gone_on) == {**numbers_of(result), "split_push": gone_on["split_push"]}


@pytest.mark.parametrize("plans", [5, 12])
def test_a_run_that_was_stopped_in_the_middle_of_a_round_goes_on_to_the_same_weights(
    plans: int,
    whole: tuple[dict[str, Any], Path],
    job: Job,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: Path,
) -> None:
    """The first device of the round has reported, the second has not: the third evaluates first, so plan 4 is one's."""
    carried, real = 0, VirtualDevice.carry_out

    def until_the_power_goes(device: VirtualDevice, plan: Plan) -> FromDevice:
        nonlocal carried
        carried += 1
        if carried == plans:
            raise PowerCutError
        return real(device, plan)

    monkeypatch.setattr(VirtualDevice, "carry_out", until_the_power_goes)
    with pytest.raises(PowerCutError):
        simulate_job(job, data, state)
    (open_round,) = view.read(state).open_rounds
    assert (open_round.reports, len(open_round.selected)) == (1, 2)
    simulate_job(job, data, state)
    assert weights_of(state) == weights_of(whole[1])


def test_a_finished_run_is_read_and_not_run_again(
    whole: tuple[dict[str, Any], Path], job: Job, data: Path, tmp_path: Path
) -> None:
    result, done = whole
    shutil.copytree(done, tmp_path / "copy", symlinks=True)
    steps: list[JobState] = []
    again = simulate_job(job, data, tmp_path / "copy", progress=steps.append)
    assert {**again, "devices": result["devices"]} == result, "but for when the devices were last seen"
    assert steps == []


def test_a_state_of_other_settings_is_refused(
    whole: tuple[dict[str, Any], Path], job: Job, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole[1], tmp_path / "copy", symlinks=True)
    with pytest.raises(JobError, match="holds"):
        simulate_job(simulated_job(job, seed=9), data, tmp_path / "copy")


def test_a_run_without_a_state_leaves_nothing_behind(
    job: Job, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = sorted(data.rglob("*"))
    simulate_job(simulated_job(job, "all-in-one"), data)
    assert list(tmp_path.glob("mas-edge-*")) == []
    assert sorted(data.rglob("*")) == before


# ---------------------------------------------------------------------- what is refused


def broken(data: Path, fault: str) -> Path:
    """Make one thing wrong in every data folder; returns where the data is then said to be."""
    for folder in data.iterdir():
        header = folder / "data.toml"
        text = header.read_text(encoding="utf-8")
        match fault:
            case "no directory":
                return data / "nowhere"
            case "no data.toml":
                header.unlink()
            case "no array":
                (folder / "level.npy").unlink()
            case "other input shape":
                header.write_text(text.replace("[2, 16]", "[2, 8]"), encoding="utf-8")
                np.save(folder / "x.npy", np.load(folder / "x.npy")[:, :, :8])
            case "no task of the job":
                header.write_text(text.partition("[tasks.level]")[0] + '[tasks.pace]\nkind = "value"\n')
                np.save(folder / "pace.npy", np.load(folder / "level.npy"))
            case "a name that is no device's":
                folder.rename(folder.with_name(f"{folder.name}+"))
    return data


REFUSED: dict[str, tuple[type[EdgeError], str]] = {
    "no directory": (DataError, "nowhere holds no data folder: expected DIR/DEVICE/data.toml for every device"),
    "no data.toml": (DataError, "holds no data folder"),
    "no array": (DataError, "level.npy"),
    "other input shape": (ServerError, "the virtual devices cannot serve this job: .*input"),
    "no task of the job": (
        ServerError,
        "the virtual devices cannot serve this job: it has no training labels for level, side, spread",
    ),
    "a name that is no device's": (DataError, r"device-\d\+"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_data_that_does_not_fit_gives_one_clear_error(fault: str, job: Job, tmp_path: Path, state: Path) -> None:
    kind, said = REFUSED[fault]
    data = broken(write_data(tmp_path / "data", DEVICES), fault)
    with pytest.raises(EdgeError, match=said) as caught:
        simulate_job(job, data, state)
    assert isinstance(caught.value, kind)
    assert "\n" not in str(caught.value)


def test_fewer_devices_than_the_job_waits_for_are_an_error_at_once(job: Job, tmp_path: Path, state: Path) -> None:
    with pytest.raises(ServerError, match=r"1 are there, federation\.min_devices is 2"):
        simulate_job(job, write_data(tmp_path / "data", 1), state)


def test_training_that_diverges_gives_one_clear_error(data: Path, tmp_path: Path, state: Path) -> None:
    wild = [
        ("[affinity]", "[optimizer]\nlearning_rate = 10.0\n\n[affinity]"),
        ("batch_size", "local_epochs = 50\nbatch_size"), ("unit = 2.0", 'loss = "l2"'),
    ]  # fmt: skip
    job = simulated_job(tiny(tmp_path, *wild), "all-in-one")
    with pytest.raises(ServerError, match=r"round merged-0000 failed: .*(finite|NaN)") as caught:
        simulate_job(job, data, state)
    assert "\n" not in str(caught.value)


def test_a_run_that_failed_goes_on_when_its_cause_is_gone(job: Job, tmp_path: Path, state: Path) -> None:
    data = write_data(tmp_path / "data", DEVICES)
    kept = {folder: np.load(folder / "x.npy") for folder in data.iterdir()}
    for folder, x in kept.items():
        np.save(folder / "x.npy", np.where(np.arange(16)[:, None, None] < 8, np.float32("nan"), x))  # train samples
    with pytest.raises(ServerError, match="round merged-0000 failed"):
        simulate_job(job, data, state)
    for folder, x in kept.items():
        np.save(folder / "x.npy", x)
    result = simulate_job(job, data, state)
    assert result["phase"] == "export"
    outcomes: list[RoundRecord] = view.read(state).rounds
    assert [record.outcome for record in outcomes].count("abandoned") == 1


def test_a_graphics_card_that_is_not_there_is_refused_before_anything_is_kept(
    job: Job, data: Path, tmp_path: Path, state: Path
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a graphics card")
    with pytest.raises(ServerError, match="--device cuda: PyTorch finds no CUDA graphics processor here"):
        simulate_job(job, data, state, "cuda")
    assert not (state / "state.db").exists()


def test_two_simulations_never_share_a_state(job: Job, data: Path, tmp_path: Path, state: Path) -> None:
    first = Simulation(job, data, state)
    with pytest.raises(ServerError, match="another orchestrator works in"):
        Simulation(job, data, state)
    first.run()
