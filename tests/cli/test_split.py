from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from mas_edge.cli import split
from mas_edge.mas.affinity import from_csv, to_csv
from mas_edge.mas.split import value_of
from mas_edge.protocol.errors import JobError
from tests.mas.matrices import TAG


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


def test_json_is_the_value_and_the_groups_and_nothing_else(
    matrix_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(matrix_file, "--groups", "2", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result == {
        "value": value_of(TAG, [["s", "d", "n"], ["k", "t"]]),
        "groups": [["s", "d", "n"], ["k", "t"]],
    }


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
