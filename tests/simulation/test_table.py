"""The tables, read back."""

from __future__ import annotations

import csv
import io
import json

import msgspec

from mas_edge.simulation.compare import Comparison
from mas_edge.simulation.table import split_text, to_csv, to_json, to_markdown
from tests.simulation.outcomes import comparison, outcome

OUTCOMES = {
    ("one-by-one", 0): outcome([0.5, 1.0], 100, [["a"], ["b"]]),
    ("one-by-one", 1): outcome([1.0, 1.0], 200, [["a"], ["b"]]),
    ("mas-2", 0): outcome([0.5, 0.8], 50, [["a"], ["b"]]),
    ("mas-2", 1): outcome([0.8, 0.8], 60, [["a"], ["b"]]),
    ("all-in-one", 0): outcome([0.4, 1.1], 20),
    ("all-in-one", 1): outcome([0.9, 1.2], 20),
}


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def cells(text: str, first: str) -> list[str]:
    """The row of the first table whose first cell is ``first``."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return next(row for row in rows if row[0] == first)


def test_the_summary_has_a_row_a_method_with_paired_changes_and_the_best_in_bold() -> None:
    text = section(to_markdown(comparison(OUTCOMES)), "Summary")
    head, one, mas, everything = (cells(text, name) for name in ("method", "one-by-one", "mas-2", "all-in-one"))
    at = {name: number for number, name in enumerate(head)}
    assert one[at["normalised total"]] == "0.6250 ± 0.1768"  # no change against itself
    assert mas[at["normalised total"]] == "**0.5250 ± 0.1061 (−15.0 %)**"  # of −10 % and −20 %
    assert mas[at["mean change per task"]] == "**−15.0 % ± 7.1 %**"
    assert mas[at["device s"]] == "55.0 ± 7.1 (×0.40)"
    assert everything[at["device s"]] == "**20.0 (×0.15)**"
    assert mas[at["affinity"]] == "11.1 %"
    assert (mas[at["MB down"]], mas[at["MB up"]]) == ("**1.50**", "**25.0**")
    assert "by hand" in text  # where the energy comes from


def test_the_metric_that_should_be_large_is_best_where_it_is_largest() -> None:
    """Task a is measured by accuracy, task b by an error."""
    metrics = section(to_markdown(comparison(OUTCOMES)), "Tasks").split("Metric")[1]
    assert [cell.startswith("**") for cell in cells(metrics, "mas-2")[1:]] == [True, True]
    assert not cells(metrics, "one-by-one")[1].startswith("**")


def test_a_method_with_missing_seeds_says_so_and_is_never_the_best() -> None:
    left = {key: value for key, value in OUTCOMES.items() if key != ("mas-2", 1)}
    text = to_markdown(comparison(left, missing={"mas-2-1": "its process was killed"}))
    assert "**Not complete: 1 run missing.**\n\n- mas-2-1: its process was killed" in text
    summary = section(text, "Summary")
    mas = cells(summary, "mas-2 (1 of 2 seeds)")
    assert not any("**" in cell for cell in mas)
    assert "**" in cells(summary, "all-in-one")[1]  # the better one of the two that are whole
    assert cells(section(text, "Seed by seed"), "mas-2")[2] == "–"


def test_seeds_with_the_same_groups_share_a_line() -> None:
    text = section(to_markdown(comparison(OUTCOMES)), "Splits")
    assert cells(text, "mas-2") == ["mas-2", "0, 1", "a + b"]
    assert cells(text, "all-in-one") == ["all-in-one", "0, 1", "a, b"]


def test_the_table_says_how_it_was_made() -> None:
    text = section(to_markdown(comparison(OUTCOMES), {"teaser.png": "A title"}), "How it was made")
    assert "`mas-edge compare job.toml`" in text
    assert "machine: a machine" in text
    assert "![A title](teaser.png)" in to_markdown(comparison(OUTCOMES), {"teaser.png": "A title"})


def test_on_a_gpu_the_table_warns_of_device_seconds() -> None:
    on_gpu = msgspec.structs.replace(comparison(OUTCOMES), device="cuda")
    assert "tell nothing of a device" in to_markdown(on_gpu)


def test_csv_has_a_row_a_run_with_every_number() -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(comparison(OUTCOMES)))))
    assert len(rows) == len(OUTCOMES)
    mas = next(row for row in rows if (row["method"], row["seed"]) == ("mas-2", "1"))
    assert float(mas["b.raw"]) == 8.0
    assert float(mas["b.change"]) == 0.8 / 1.0 - 1
    assert float(mas["multiply_accumulates"]) == 60e9
    assert mas["split"] == "a + b"
    assert mas["split.normalised.rank"] == ""


def test_json_has_everything_and_reads_back() -> None:
    whole = comparison(OUTCOMES)
    assert msgspec.convert(json.loads(to_json(whole)), Comparison) == whole


def test_a_comparison_of_nothing_is_a_table_of_nothing() -> None:
    empty = comparison({}, missing={"mas-2-0": "it said nothing"})
    assert to_csv(empty) == "method,seed\n"
    assert "Not complete" in to_markdown(empty)


def test_a_split_is_one_line() -> None:
    assert split_text([["a", "b"], ["c"]]) == "a, b + c"
