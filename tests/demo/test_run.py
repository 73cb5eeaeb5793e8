"""What a demo does with the run of the one before."""

from __future__ import annotations

from pathlib import Path

import pytest

from mas_edge.cli import main
from mas_edge.federation.flow import Phase
from mas_edge.protocol.errors import DataError
from tests.reporting.small_runs import MERGED, write_run


@pytest.mark.parametrize(("phase", "stays"), [("merge", True), ("done", False), ("aborted", False)])
def test_a_run_that_is_over_makes_room_and_another_is_gone_on_with(tmp_path: Path, phase: Phase, stays: bool) -> None:
    state = write_run(tmp_path / "state", MERGED, phase)
    (tmp_path / "data").write_text("")  # a file, so that the demo ends where it makes the data
    assert main(["demo", "--out", str(tmp_path)]) == DataError.exit_code
    assert state.exists() is stays
