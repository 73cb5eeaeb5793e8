from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from mas_edge.cli import split
from mas_edge.mas.affinity import AffinityMatrix, from_csv, to_csv
from mas_edge.mas.split import value_of
from mas_edge.protocol.errors import JobError
from tests.mas.matrices import TAG, random_matrix


def run(*argv: str | Path) -> int:
    parser = argparse.ArgumentParser()
    split.add_parser(parser.add_subparsers(dest="verb", required=True))
    args = parser.parse_args(["split", *map(str, argv)])
    code: int = args.run(args)
    return code


@pytest.fixture
def matrix_file(tmp_path: Path) -> Path:
    path = tmp_path / "affinity.csv"
    path.write_text(to_csv(TAG), encoding="utf-8")
    return path


def test_json_is_the_value_the_groups_and_what_is_proven_and_nothing_else(
    matrix_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(matrix_file, "--groups", "2", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result == {
        "value": value_of(TAG, [["s", "d", "n"], ["k", "t"]]),
        "groups": [["s", "d", "n"], ["k", "t"]],
        "bound": value_of(TAG, [["s", "d", "n"], ["k", "t"]]),
        "optimal": True,
    }


COSTS = "part,parameters,seconds\nencoder,100,1\ns,10,0.2\nd,10,0.2\nn,10,0.2\nk,10,0.2\nt,10,0.2\n"


@pytest.fixture
def costs_file(tmp_path: Path) -> Path:
    path = tmp_path / "costs.csv"
    path.write_text(COSTS, encoding="utf-8")
    return path


def test_a_group_over_a_limit_is_not_chosen(
    matrix_file: Path, costs_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ["--limit", "parameters=120", "--limit", "seconds=9"]
    assert run(matrix_file, "--groups", "3", "--costs", costs_file, *limits, "--json") == 0
    assert json.loads(capsys.readouterr().out)["groups"] == [["s", "d"], ["n"], ["k", "t"]]
    with pytest.raises(JobError, match=r"within the limit of parameters \(at most 120 a group\): .* that fits is 3;"):
        run(matrix_file, "--groups", "2", "--costs", costs_file, *limits)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--groups", "2", "--limit", "memory=3"], "--limit: no column 'memory' in the table of costs; give one with"),
        (["--groups", "auto", "--at-most"], "--at-most needs a number of groups"),
        (["--groups", "auto", "--cost", "seconds"], "--cost: no column 'seconds' in the table of costs; give one with"),
        (["--groups", "auto", "--after-split", "2"], "share of the rounds after the split is 2.0"),
        (["--groups", "2", "--costs", "nowhere.csv"], "cannot read nowhere.csv: .* a CSV file of costs"),
        (["--groups", "auto", "--errors", "nowhere.csv"], "cannot read nowhere.csv"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(matrix_file: Path, options: list[str], message: str) -> None:
    with pytest.raises(JobError, match=message):
        run(matrix_file, *options)


@pytest.mark.parametrize("options", [["--groups", "many"], ["--groups", "2", "--limit", "parameters"]])
def test_what_argparse_cannot_read_is_a_usage_error(matrix_file: Path, options: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(matrix_file, *options)
    assert caught.value.code == 2


def test_an_unknown_column_of_costs_is_named_with_those_there_are(matrix_file: Path, costs_file: Path) -> None:
    with pytest.raises(JobError, match="--cost: no column 'joules' in the table of costs; it has parameters, seconds"):
        run(matrix_file, "--groups", "auto", "--costs", costs_file, "--cost", "joules")


def test_a_table_of_costs_that_is_none_is_named_with_its_file(matrix_file: Path, costs_file: Path) -> None:
    costs_file.write_text("part,parameters\nencoder,1\n", encoding="utf-8")
    with pytest.raises(JobError, match=r"costs\.csv: cost CSV: no row for 's', 'd', 'n', 'k', 't'"):
        run(matrix_file, "--groups", "auto", "--costs", costs_file)


def test_auto_prints_every_number_of_groups_and_why_one_was_chosen(
    matrix_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(matrix_file, "--groups", "auto") == 0
    page = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    # An encoder of 1 and heads of a tenth: two groups cost .3 + .7 x 2.5 / 1.5 of the merged network.
    assert page[0].startswith("2 groups gain +0.1924 over all in one at 1.47 times its cost: 0.1312 for each time")
    assert page[2:6] == [
        "groups value gain noise cost split",
        "1 +0.129295 +0.000000 0.000000 1.00 {s, d, n, k, t}",
        "> 2 +0.321690 +0.192395 0.000000 1.47 {s, d, n} {k, t}",
        "3 +0.325350 +0.196055 0.000000 1.93 {s, d} {n} {k, t}",
    ]


def test_auto_gives_the_same_as_json(
    matrix_file: Path, costs_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = tmp_path / "errors.csv"  # in another order than the affinities
    errors.write_text(to_csv(AffinityMatrix(tuple("tknds"), np.full((5, 5), 0.01))), encoding="utf-8")
    options = ["--groups", "auto", "--costs", str(costs_file), "--cost", "seconds", "--after-split", "0.5", "--json"]
    assert run(matrix_file, *options, "--errors", errors) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["groups"] == [["s", "d", "n"], ["k", "t"]]
    assert (result["optimal"], result["bound"]) == (True, result["value"])
    assert [row["groups"] for row in result["candidates"]] == [1, 2, 3, 4, 5]
    assert [row["chosen"] for row in result["candidates"]] == [False, True, False, False, False]
    assert set(result["candidates"][0]) == {"groups", "value", "split", "gain", "noise", "cost", "chosen"}
    assert result["candidates"][1]["cost"] == pytest.approx(
        0.5 + 0.5 * 3 / 2
    )  # of seconds: N encoders, five heads of .2
    assert 0 < result["candidates"][1]["noise"] < 0.05
    assert result["reason"].startswith("2 groups gain +0.18")


def test_errors_of_other_tasks_are_refused(matrix_file: Path, tmp_path: Path) -> None:
    errors = tmp_path / "errors.csv"
    errors.write_text(",a,b\na,0,1\nb,1,0\n", encoding="utf-8")
    with pytest.raises(
        JobError, match=r"errors\.csv: expected the standard errors of the tasks s, d, n, k, t, got a, b"
    ):
        run(matrix_file, "--groups", "auto", "--errors", errors)


def test_beyond_the_exact_search_the_bound_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "many.csv"
    path.write_text(to_csv(random_matrix(22, 0)), encoding="utf-8")
    assert run(path, "--groups", "3") == 0
    page = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert page[3].startswith("bound +")
    assert page[3].endswith("(no split is better; this one may be beaten)")
    assert run(path, "--groups", "3", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert not result["optimal"]
    assert result["value"] < result["bound"]


def test_at_most_may_give_fewer_groups(matrix_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(matrix_file, "--groups", "4", "--at-most", "--json") == 0
    assert json.loads(capsys.readouterr().out)["groups"] == [["s", "d"], ["n"], ["k", "t"]]


def test_people_see_the_split_the_runner_up_and_the_self_affinities(
    matrix_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(matrix_file, "--groups", "2") == 0
    page = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert page[:3] == [
        "best split +0.321690 {s, d, n} {k, t}",
        "runner-up +0.218510 {s, d} {n, k, t}",
        "all in one +0.129295 (every task alone has the same value)",
    ]
    assert [page[-5], page[-4], page[-3]] == ["s +0.101100", "d +0.147375", "n +0.104350"]  # worked out by hand


def test_people_see_that_there_is_no_other_split(matrix_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(matrix_file, "--groups", "5") == 0
    assert "none" in capsys.readouterr().out


def test_the_example_of_the_help_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    block = split.EXAMPLE.split("\n\n")[-1]
    path = tmp_path / "affinity.csv"
    path.write_text("\n".join(line.strip() for line in block.splitlines()), encoding="utf-8")
    assert run(path, "--groups", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["groups"] == [["exercise", "side"], ["forecast"]]
    assert from_csv(path.read_text(encoding="utf-8")).tasks == ("exercise", "side", "forecast")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot read .*affinity\.csv: No such file"),
        (b"\xff\xfe,\x00a\x00", r"cannot read .*affinity\.csv: it is not UTF-8 text"),
        (b"", r"affinity\.csv: affinity CSV: expected a header row"),
        (b",a,b\na,0,x\nb,0,0\n", r"affinity\.csv: affinity CSV, line 2, column 'b': expected a finite number"),
    ],
    ids=["missing", "not UTF-8", "empty", "not a number"],
)
def test_a_file_that_is_no_matrix_gives_one_clear_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "affinity.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(JobError, match=message) as caught:
        run(path, "--groups", "2")
    assert caught.value.exit_code == 3


def test_a_directory_gives_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"cannot read .*: Is a directory"):
        run(tmp_path, "--groups", "2")


@pytest.mark.parametrize("groups", ["0", "6", "-1"])
def test_a_number_of_groups_that_cannot_be_is_refused(matrix_file: Path, groups: str) -> None:
    with pytest.raises(JobError, match="from 1 to 5"):
        run(matrix_file, f"--groups={groups}")
