"""Which runs are made, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from mas_edge.job import load_job
from mas_edge.protocol.errors import JobError, ServerError
from mas_edge.simulation.ledger import digest, open_ledger, save_ledger
from mas_edge.simulation.plan import plan_runs
from tests.simulation.tiny import write_data, write_job


def names(tmp_path: Path, methods: list[str], seeds: list[int], exhaustive: bool = False) -> list[str]:
    plan = plan_runs(load_job(write_job(tmp_path)), methods, seeds, exhaustive=exhaustive)
    return [run.name for run in plan.longest_first]


def test_long_runs_begin_first_so_that_none_of_them_runs_alone_at_the_end(tmp_path: Path) -> None:
    methods = ["all-in-one", "tag-2", "mas-2", "one-by-one", "hoa-2"]
    assert names(tmp_path, methods, [1, 0]) == [
        f"{method}-{seed}" for method in ["hoa-2", "tag-2", "one-by-one", "all-in-one", "mas-2"] for seed in (1, 0)
    ]


@pytest.mark.parametrize(
    ("methods", "also"),
    [
        (["mas-2"], ["every-2-0"]),
        (["mas-2", "random-2", "scratch-2", "worst-2"], ["every-2-0"]),
        (["mas-1", "mas-3"], []),  # all together, and each alone: there is nothing to rank
        (["mas-auto", "tag-2"], []),
    ],
)
def test_all_splits_are_trained_of_each_size_that_mas_chooses_from(
    tmp_path: Path, methods: list[str], also: list[str]
) -> None:
    assert [name for name in names(tmp_path, methods, [0], exhaustive=True) if name.startswith("every")] == also
    assert not [name for name in names(tmp_path, methods, [0]) if name.startswith("every")]


@pytest.mark.parametrize(
    ("methods", "reference", "chosen"),
    [
        (["mas-2", "one-by-one"], "", "one-by-one"),
        (["all-in-one", "mas-2"], "", "all-in-one"),
        (["mas-2", "one-by-one"], "mas-2", "mas-2"),
    ],
)
def test_the_reference_is_one_by_one_if_it_is_there(
    tmp_path: Path, methods: list[str], reference: str, chosen: str
) -> None:
    assert plan_runs(load_job(write_job(tmp_path)), methods, [0], reference).reference == chosen


def test_a_seed_that_cannot_be_or_is_named_twice_is_refused(tmp_path: Path) -> None:
    job = load_job(write_job(tmp_path))
    with pytest.raises(JobError, match="seed is -1"):
        plan_runs(job, ["mas-2"], [-1])
    with pytest.raises(JobError, match="--seeds holds 1 twice"):
        plan_runs(job, ["mas-2"], [1, 0, 1])


def test_the_digest_is_that_of_every_byte_and_name(tmp_path: Path) -> None:
    folders = [tmp_path / "data" / f"device-{number}" for number in (0, 1)]
    write_data(tmp_path / "data")
    before = digest(folders)
    assert digest(folders) == before
    assert digest(folders[::-1]) != before
    labels = folders[1] / "side.npy"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert digest(folders) != before
    labels.write_bytes(whole)
    labels.rename(folders[1] / "edis.npy")
    assert digest(folders) != before


def test_a_ledger_is_found_again_and_keeps_to_its_device(tmp_path: Path) -> None:
    job = load_job(write_job(tmp_path))
    folders = [write_data(tmp_path / "data") / "device-0"]
    ledger = open_ledger(tmp_path, job, folders, "cpu")
    ledger.wall_seconds["mas-2-0"] = 1.5
    save_ledger(tmp_path, ledger)
    assert open_ledger(tmp_path, job, folders, "cpu").wall_seconds == {"mas-2-0": 1.5}
    with pytest.raises(JobError, match="holds a comparison with --device cpu"):
        open_ledger(tmp_path, job, folders, "cuda")
    (tmp_path / "ledger.json").write_text("{", encoding="utf-8")
    with pytest.raises(ServerError, match="choose another --out"):
        open_ledger(tmp_path, job, folders, "cpu")
