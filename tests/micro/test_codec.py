"""The agent on the real MicroPython: its codec against the published vectors, and its heap."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.micro.board import needs_micropython, run_script
from tests.micro.desk import DATA
from tests.micro.test_vectors import FOLDER


@needs_micropython
def test_a_board_reads_and_writes_what_the_vectors_say_and_refuses_what_they_refuse(tmp_path: Path) -> None:
    assert run_script("read_vectors", str(FOLDER), str(tmp_path / "flash")).startswith("read 14")


@needs_micropython
def test_a_thousand_messages_leave_nothing_in_the_heap(tmp_path: Path) -> None:
    (tmp_path / "flash").mkdir()
    said, early, late = map(int, run_script("flat_heap", str(tmp_path / "flash")).split())
    assert said == 750  # an ack, a want and an offer for every plan
    assert late <= early


@needs_micropython
@pytest.mark.parametrize("model", ["dense", "series", "large"])
def test_a_board_that_has_tried_a_model_has_the_memory_to_train_again(model: str) -> None:
    """Its next job begins with training: the code that ran the model made room for the code that trains."""
    turns = [line.split() for line in run_script("turns", str(DATA / f"{model}.model")).splitlines()[1:]]
    assert len(turns) == 4
    free, modules = [int(line[0]) for line in turns], [line[1:] for line in turns]
    assert "head" in modules[0]
    assert all(each == modules[0] for each in modules)
    assert free[-1] > 0.9 * free[0]
    assert free[1] - free[-1] < 512  # no turn leaves anything that grows
