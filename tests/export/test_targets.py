from __future__ import annotations

import dataclasses

import pytest

from mas_edge.cli.export import TARGETS as NAMES
from mas_edge.export import targets
from mas_edge.export.targets import TARGETS, emitter_of, exporter_of, find_targets
from mas_edge.export.trace import trace_program
from mas_edge.job import ENGINES
from mas_edge.protocol.errors import ServerError
from tests.learning.jobs import KINDS, series_job

ABSENT = dataclasses.replace(TARGETS["onnx"], name="absent", packages=("onnx", "no_such_package"))
BROKEN = dataclasses.replace(TARGETS["onnx"], name="broken", exporter="mas_edge.export.no_such_module")


def test_the_command_line_knows_the_same_targets() -> None:
    assert set(NAMES) == set(TARGETS)


def test_targets_come_in_the_order_they_were_asked_for_each_once() -> None:
    assert [target.name for target in find_targets(["onnx", "onnx"])] == ["onnx"]


def test_a_target_whose_package_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(targets.TARGETS, "absent", ABSENT)
    with pytest.raises(ServerError, match=r"absent needs no_such_package: pip install 'mas-edge\[server\]'"):
        find_targets(["absent"])


def test_an_exporter_that_does_not_import_says_what_to_install() -> None:
    with pytest.raises(ServerError, match=r"broken does not start .*no_such_module.*: pip install"):
        exporter_of(BROKEN)


def test_an_unknown_target_is_named_with_those_that_are_known() -> None:
    with pytest.raises(ServerError, match="no target 'tpu'; allowed: onnx, executorch, litert, micro"):
        find_targets(["tpu"])


def test_the_emitter_of_torch_is_the_trace_itself_and_every_engine_has_one() -> None:
    program = trace_program(series_job(KINDS[:1]), "g", ["label"], ["evaluate"])
    assert emitter_of("torch")(program) is program
    assert emitter_of("onnxruntime")(program).engine == "onnxruntime"
    assert {"torch", "micro", *(target.engine for target in TARGETS.values() if target.emitter)} == set(ENGINES)
