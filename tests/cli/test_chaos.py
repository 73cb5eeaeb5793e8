"""``mas-edge chaos`` on a small job: what it prints, what it ends with, and what it says when an invariant breaks."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from mas_edge.chaos.harness import Recovery, Run
from mas_edge.chaos.invariants import Verdict
from mas_edge.chaos.soak import draw_faults, recovery_times, summary_of
from mas_edge.cli import main
from mas_edge.cli.chaos import page
from tests.faults.tiny import make_ground

pytestmark = pytest.mark.e2e


def test_one_run_of_a_small_job_holds_every_invariant_and_ends_with_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mosquitto_is_here: None
) -> None:
    ground = make_ground(tmp_path / "ground")
    arguments = ["chaos", str(ground.job_file), "--data", str(tmp_path / "ground" / "data"), "--minutes", "0"]
    arguments += ["--seed", "3", "--out", str(tmp_path / "out"), "--json"]
    assert main(arguments) == 0
    summary = json.loads(capsys.readouterr().out)
    (run,) = summary["runs"]
    assert summary["held"] is True
    assert (run["seed"], run["problems"]) == (3, [])
    assert run["kills"]
    assert sum(run["faults"].values()) > 0
    assert run["rounds_folded_again"] > 0
    assert run["trainings_repeated"] > 0
    assert {kind for kind in summary["recovery"] if kind.endswith("killed")}
    assert main(arguments) == 6
    assert "exists: choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("devices", "words"), [("nobody", "found none for nobody"), ("", "expected a data folder for each device")]
)
def test_data_that_are_not_there_are_named(
    devices: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make_ground(tmp_path / "ground").job_file
    (tmp_path / "empty").mkdir()
    arguments = ["chaos", str(job), "--data", str(tmp_path / "empty"), "--devices", devices]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 4
    assert words in capsys.readouterr().err


RUNS = [
    Run(7, Verdict(updates=3, longest_round_s=2.0), 5.0, ["ada"], {"drop": 2}, [Recovery("device killed", 1.0, 2.0)]),
    Run(8, Verdict(["x is lost"]), 5.0, ["broker", "ada"], {}, [Recovery("device killed", 3.0, 2.0)]),
]


def test_the_page_names_the_seed_that_broke_and_how_to_repeat_it() -> None:
    args = argparse.Namespace(job=Path("job.toml"), data=Path("rooms"), out=Path("out"))
    text = page(summary_of(RUNS), args)
    assert "2 runs, 3 kills, 2 packets spoilt; longest round 2.0 s" in text
    assert "BROKEN with seed 8; its files: out/seed-8" in text
    assert "mas-edge chaos job.toml --data rooms --minutes 0 --out again --seed 8" in text
    assert page(summary_of(RUNS[:1]), args).endswith("every invariant held")


def test_recovery_times_are_those_of_all_runs() -> None:
    (found,) = recovery_times(RUNS).values()
    assert found == {"count": 2, "median_s": 2.0, "worst_s": 3.0, "bound_s": 2.0, "above": 1}


def test_a_seed_draws_the_same_faults_again() -> None:
    assert draw_faults(5) == draw_faults(5) != draw_faults(6)
