"""The agent on the real MicroPython: its codec against the published vectors, and its heap."""

from __future__ import annotations

from pathlib import Path

from tests.micro.board import needs_micropython, run_script
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
