"""``mas-edge compare`` on a tiny job: every run is a real process."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from device_runtime.edge.lock import lock_directory
from mas_edge.cli import main
from tests.simulation.tiny import write_data, write_job

PATIENCE_S = 120.0
METHODS = ["all-in-one", "mas-2"]


class Bench:
    """A job, data and a folder for comparisons."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.job, self.data = write_job(folder), write_data(folder / "data")

    def words(self, *more: str, methods: list[str] | None = None, seeds: tuple[int, ...] = (0, 1)) -> list[str]:
        named = ["--methods", *(methods or METHODS), "--seeds", *map(str, seeds)]
        return ["compare", str(self.job), "--data", str(self.data), "--out", str(self.out), *named, *more]

    def copy(self, folder: Path) -> Bench:
        """The same, with all that was run, for one test to harm."""
        other = Bench(folder)
        shutil.copytree(self.out, other.out)
        return other

    def table(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "table.json").read_text(encoding="utf-8"))
        return found

    def times(self) -> dict[str, float]:
        """When each result was written."""
        return {path.stem: path.stat().st_mtime for path in (self.out / "runs").iterdir()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    bench = Bench(tmp_path_factory.mktemp("finished"))
    assert main(bench.words()) == 0
    return bench


@pytest.fixture
def bench(finished: Bench, tmp_path: Path) -> Bench:
    return finished.copy(tmp_path)


def test_each_method_meets_the_reference_of_its_own_seed(finished: Bench) -> None:
    table = finished.table()
    assert table["reference"] == "all-in-one"  # the first, since one-by-one is not there
    assert [(row["method"], row["seed"]) for row in table["rows"]] == [(m, s) for m in METHODS for s in (0, 1)]
    of = {(row["method"], row["seed"]): row["normalised_total"] for row in table["rows"]}
    for row in table["rows"]:
        share = of[row["method"], row["seed"]] / of["all-in-one", row["seed"]] - 1
        assert row["normalised_change"] == pytest.approx(share)
    assert table["missing"] == {}
    assert table["wall_seconds"] > 0


def test_tables_and_pictures_lie_beside_the_runs_and_no_state_is_left(finished: Bench) -> None:
    names = {path.name for path in finished.out.iterdir()}
    pictures = {"teaser.png", "per-task.png", "affinity.png", "splits.png"}
    assert names >= {"table.md", "table.csv", "table.json", "ledger.json", "runs", "logs", *pictures}
    assert all((finished.out / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert list((finished.out / "state").iterdir()) == []
    assert set(finished.times()) == {f"{method}-{seed}" for method in METHODS for seed in (0, 1)}
    with (finished.out / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["raw_total"]) for row in rows] == [row["raw_total"] for row in finished.table()["rows"]]
    markdown = (finished.out / "table.md").read_text(encoding="utf-8")
    assert all(name in markdown for name in [*METHODS, *pictures, "estimated", "Python", "torch"])


def test_what_is_finished_is_not_run_again_and_what_was_deleted_comes_back_the_same(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    before, times = bench.table(), bench.times()
    (bench.out / "runs" / "mas-2-1.json").unlink()
    assert main(bench.words("--json")) == 0
    printed = capsys.readouterr()
    assert "mas-2 seed 1: done" in printed.err
    assert "seed 0" not in printed.err
    after = json.loads(printed.out)
    assert [row["raw_total"] for row in after["rows"]] == [row["raw_total"] for row in before["rows"]]
    assert {name for name, at in bench.times().items() if at != times[name]} == {"mas-2-1"}


def test_the_split_is_ranked_among_all_of_its_size(bench: Bench) -> None:
    assert main(bench.words("--exhaustive", seeds=(0,))) == 0
    table = bench.table()
    (ranking,), (rank,) = table["rankings"], table["ranks"]
    assert (ranking["groups"], len(ranking["splits"])) == (2, 3)  # of three tasks
    assert (rank["method"], rank["normalised"]["of"]) == ("mas-2", 3)
    totals = [split["normalised"] for split in ranking["splits"]]
    assert totals == sorted(totals)
    assert rank["normalised"]["total"] == totals[rank["normalised"]["rank"] - 1]
    chosen = next(row for row in table["rows"] if row["method"] == "mas-2")
    assert rank["normalised"]["total"] == pytest.approx(chosen["normalised_total"], rel=0.05)  # other devices drawn
    assert "every-2" not in table["methods"]
    assert (bench.out / "ranks.png").exists()


def test_ctrl_c_ends_every_run_and_the_same_command_goes_on(finished: Bench, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    words = bench.words("--workers", "1", methods=["mas-2"], seeds=(0,))
    state = bench.out / "state" / "mas-2-0"
    process = subprocess.Popen([sys.executable, "-m", "mas_edge", *words], stderr=subprocess.PIPE, env=dict(os.environ))
    deadline = time.monotonic() + PATIENCE_S
    while not (state / "state.db").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, said
    assert b"interrupted" in said
    assert not (bench.out / "runs" / "mas-2-0.json").exists()
    assert not (bench.out / "table.md").exists()
    lock_directory(state).close()  # nobody works in it any more
    assert main(words) == 0
    whole = {row["seed"]: row for row in finished.table()["rows"] if row["method"] == "mas-2"}
    assert bench.table()["rows"][0]["raw_total"] == pytest.approx(whole[0]["raw_total"], rel=1e-6)
    assert bench.table()["rows"][0]["multiply_accumulates"] == whole[0]["multiply_accumulates"]


def test_a_run_that_fails_is_told_the_others_go_on_and_the_table_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(tmp_path)
    write_job(tmp_path, ("[affinity]", "[limits]\nparameters = 1\n\n[affinity]"))  # all-in-one has no choice to make
    assert main(bench.words(methods=["mas-2", "all-in-one"], seeds=(0,))) == 3
    printed = capsys.readouterr()
    assert re.search("mas-2 seed 0: failed after .* s: task 'level' alone takes .* parameters", printed.err)
    assert "all-in-one seed 0: done" in printed.err
    assert "**Not complete: 1 run missing.**" in printed.out
    assert list(bench.table()["missing"]) == ["mas-2-0"]
    assert [row["method"] for row in bench.table()["rows"]] == ["all-in-one"]


@pytest.mark.parametrize(
    ("more", "methods", "message"),
    [
        ([], ["all-in-one", "mas"], "method 'mas' is not known; allowed: one-by-one"),
        ([], ["all-in-one", "mas-4"], "method mas-4: federation.groups is 4"),
        ([], ["mas-2", "mas-2"], "--methods holds mas-2 twice"),
        ([], ["mas-2", "every-2"], "leave it to --exhaustive"),
        (["--reference", "one-by-one"], ["mas-2"], "--reference one-by-one is not among the methods"),
        (["--workers", "0"], ["mas-2"], "--workers is 0"),
    ],
)
def test_a_wrong_choice_is_one_clear_error_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], methods: list[str], message: str
) -> None:
    bench = Bench(tmp_path)
    assert main(bench.words(*more, methods=methods)) == 3
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert not (bench.out / "logs").exists()


def test_a_folder_of_another_job_or_of_other_data_is_refused(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    write_job(bench.folder, ("batch_size = 4", "batch_size = 2"))
    assert main(bench.words()) == 3
    assert "holds a comparison of another job" in capsys.readouterr().err
    write_job(bench.folder)
    shutil.rmtree(bench.data)
    write_data(bench.data, seed=1)
    assert main(bench.words()) == 3
    assert "holds a comparison on other data" in capsys.readouterr().err


def test_a_result_that_is_not_this_run_s_is_refused(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    runs = bench.out / "runs"
    shutil.copy(runs / "mas-2-0.json", runs / "mas-2-1.json")
    assert main(bench.words()) == 3
    assert "not a result of this job by mas-2 from seed 1" in capsys.readouterr().err
    (runs / "mas-2-1.json").write_text("{}", encoding="utf-8")
    assert main(bench.words()) == 3
    assert "mas-2-1.json is not a result of mas-edge simulate" in capsys.readouterr().err


def test_results_from_elsewhere_are_taken_if_they_are_of_the_same_data(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs of another machine are copied into ``runs``."""
    (bench.out / "ledger.json").unlink()
    assert main(bench.words()) == 0
    assert "running" not in capsys.readouterr().err
    (bench.out / "ledger.json").unlink(missing_ok=True)
    shutil.rmtree(bench.data)
    write_data(bench.data, seed=1)
    assert main(bench.words()) == 3
    assert "is a result on other data" in capsys.readouterr().err


def test_two_comparisons_never_share_a_folder(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    with lock_directory(bench.out):
        assert main(bench.words()) == 6
    assert "another mas-edge compare is at work" in capsys.readouterr().err
