"""What an orchestrator that cannot begin leaves behind; whole runs are in tests/e2e."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from mas_edge.export.targets import TARGETS
from mas_edge.federation.flow import JobState
from mas_edge.orchestrator.service import Orchestrator
from mas_edge.orchestrator.steps import FIRST_FORMAT
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.errors import JobError, ServerError
from tests.orchestrator.small_run import JOB


def test_an_orchestrator_that_is_refused_a_directory_lets_go_of_it(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.begin(JOB, JobState(run_id="j-1"))
    first.close()
    other = msgspec.structs.replace(JOB, seed=JOB.seed + 1)
    for _ in range(2):  # the second would say that another orchestrator works in it
        with pytest.raises(JobError, match="holds a run of other settings"):
            Orchestrator(other, tmp_path, "mqtt://127.0.0.1:1")
    Store(tmp_path).close()


def test_a_package_that_is_missing_at_the_end_is_missed_at_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, FIRST_FORMAT, replace(TARGETS[FIRST_FORMAT], packages=("onnx", "not_installed")))
    with pytest.raises(ServerError, match=r"exporting to onnx needs not_installed: pip install 'mas-edge\[server\]'"):
        Orchestrator(JOB, tmp_path / "state", "mqtt://127.0.0.1:1")
    assert not (tmp_path / "state").exists()
