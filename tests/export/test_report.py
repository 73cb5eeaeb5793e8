from __future__ import annotations

import json

import pytest

from mas_edge.export.report import Loss, Report, from_json, table, to_json, worst_of_each
from mas_edge.export.verify import Comparison
from mas_edge.protocol.errors import ServerError

FOUND = [
    Comparison("train_step", "weights", 1e-8, 2e-8, 1e-5),
    Comparison("train_step", "weights after 10 steps", 1e-5, 5e-4, 1e-3),
    Comparison("evaluate", "losses", 3e-7, 4e-7, 1e-5),
]
REPORT = Report(
    group="g", target="onnx", precision="int8", engine="onnxruntime", versions={"onnx": "1"}, model=FOUND[:1],
    program=FOUND, quantization=[Loss(task="a", relative_l2=0.01, samples=9)],
)  # fmt: skip


def test_a_report_reads_back_from_json() -> None:
    assert from_json(to_json(REPORT)) == REPORT
    first = json.loads(to_json(REPORT))["program"][0]
    assert first == {"method": "train_step", "output": "weights", "max_abs": 1e-8, "max_rel": 2e-8, "tolerance": 1e-5}


def test_what_is_no_report_is_refused() -> None:
    with pytest.raises(ServerError, match="not a verification report"):
        from_json(b"{}")


def test_the_table_has_a_line_for_each_output_in_columns() -> None:
    assert table(FOUND) == [
        "method      output                  max abs  max rel  allowed",
        "train_step  weights                 1.0e-08  2.0e-08  1.0e-05",
        "train_step  weights after 10 steps  1.0e-05  5.0e-04  1.0e-03",
        "evaluate    losses                  3.0e-07  4.0e-07  1.0e-05",
    ]


def test_the_worst_output_of_a_method_is_the_one_nearest_to_its_own_bound() -> None:
    assert worst_of_each(FOUND) == [(FOUND[1], 2), (FOUND[2], 1)]
