"""``mas-edge chaos`` on a small job: what it prints, what it ends with, and what it says when an invariant breaks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mas_edge.chaos.harness import Recovery, Run, draw_kills, pace_of
from mas_edge.chaos.invariants import Verdict
from mas_edge.chaos.soak import draw_faults, recovery_times, summary_of
from mas_edge.cli import main
from mas_edge.cli.chaos import page, until_interrupted
from mas_edge.job import load_job
from tests.faults.tiny import DEVICES, make_ground, write_folder, write_job

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


# What is given beside what is right, the exit code, and what is said.
NONSENSE: dict[str, tuple[list[str], int, str]] = {
    "no job": (["none.toml", "--data", "data"], 3, "job file none.toml: cannot be read"),
    "no data": (["job.toml", "--data", "nowhere"], 4, "nowhere holds no data folder: expected DIR/DEVICE/data.toml"),
    "an empty folder": (["job.toml", "--data", "empty"], 4, "empty holds no data folder"),
    "a device that is not there": (["job.toml", "--data", "data", "--devices", "ada,eve"], 4, "found none for eve"),
    "too few devices": (["job.toml", "--data", "data", "--devices", "ada"], 4, "waits for 3 devices (federation.min"),
    "a file in the way": (["job.toml", "--data", "data", "--out", "job.toml/out"], 6, "choose another --out"),
    "minutes below nothing": (["job.toml", "--data", "data", "--minutes", "-1"], 2, "expected minutes, 0 for one run"),
    "no number": (["job.toml", "--data", "data", "--minutes", "nan"], 2, "0 for one run, not 'nan'"),
}


@pytest.mark.parametrize("case", NONSENSE)
def test_nonsense_is_refused_in_one_line_and_leaves_nothing_behind(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_job(tmp_path / "job.toml")
    for seed, name in enumerate(DEVICES):
        write_folder(tmp_path / "data" / name, seed)
    (tmp_path / "empty").mkdir()
    before = set(tmp_path.rglob("*"))
    words, code, said = NONSENSE[case]
    assert exit_code(["chaos", *words]) == code
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert set(tmp_path.rglob("*")) == before


def exit_code(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as ended:  # usage
        return int(ended.code or 0)


def test_a_job_that_cannot_be_exported_is_refused_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], mosquitto_is_here: None
) -> None:
    job = write_job(tmp_path / "job.toml", encoder="missing", min_devices=1)
    write_folder(tmp_path / "data" / "ada", seed=0)
    assert main(["chaos", str(job), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 3
    (line,) = capfd.readouterr().err.splitlines()
    assert "missing" in line


def test_what_was_found_before_ctrl_c_counts() -> None:
    def soaking() -> Iterator[Run]:
        yield RUNS[0]
        raise KeyboardInterrupt

    assert until_interrupted(RUNS) == (RUNS, False)
    assert until_interrupted(soaking()) == (RUNS[:1], True)
    interrupted = soaking()
    next(interrupted)
    with pytest.raises(KeyboardInterrupt):
        until_interrupted(interrupted)


def test_kills_come_at_the_pace_of_the_job(tmp_path: Path) -> None:
    small = load_job(write_job(tmp_path / "small.toml"))
    large = load_job(write_job(tmp_path / "large.toml", rounds=40, merge_rounds=20, per_round=4))
    assert (pace_of(small), pace_of(large)) == (1.0, 20.0)
    for few, many in zip(draw_kills(3, ["ada", "bob"], 5), draw_kills(3, ["ada", "bob"], 5, 20.0), strict=True):
        assert (many.victim, many.messages, many.down_s) == (few.victim, 20 * few.messages, few.down_s)


RUNS = [
    Run(7, Verdict(updates=3, longest_round_s=2.0), 5.0, ["ada"], {"drop": 2}, [Recovery("device killed", 1.0, 2.0)]),
    Run(8, Verdict(["x is lost"]), 5.0, ["broker", "ada"], {}, [Recovery("device killed", 3.0, 2.0)]),
]


def test_the_page_names_the_seed_that_broke_and_how_to_repeat_it() -> None:
    args = argparse.Namespace(job=Path("job.toml"), data=Path("rooms"), out=Path("out"), devices="")
    text = page(summary_of(RUNS), args)
    assert "2 runs, 3 kills, 2 packets spoilt; longest round 2.0 s" in text
    assert "BROKEN with seed 8; its files: out/seed-8" in text
    assert "mas-edge chaos job.toml --data rooms --minutes 0 --out again --seed 8" in text
    args.devices = "ada,bob"
    assert "--data rooms --devices ada,bob --minutes 0" in page(summary_of(RUNS), args)
    assert page(summary_of(RUNS[:1]), args).startswith("1 run, 1 kills, ")
    assert page(summary_of(RUNS[:1]), args).endswith("every invariant held")


def test_recovery_times_are_those_of_all_runs() -> None:
    (found,) = recovery_times(RUNS).values()
    assert found == {"count": 2, "median_s": 2.0, "worst_s": 3.0, "bound_s": 2.0, "above": 1}


def test_a_seed_draws_the_same_faults_again() -> None:
    assert draw_faults(5) == draw_faults(5) != draw_faults(6)
