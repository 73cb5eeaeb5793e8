"""The agent's own codec, on the real MicroPython, against the published vectors."""

from __future__ import annotations

from pathlib import Path

from tests.micro.board import needs_micropython, run_script
from tests.micro.test_vectors import FOLDER


@needs_micropython
def test_a_board_reads_and_writes_what_the_vectors_say_and_refuses_what_they_refuse(tmp_path: Path) -> None:
    assert run_script("read_vectors", str(FOLDER), str(tmp_path / "flash")).startswith("read 14")
