from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mas_edge.cli import main
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.errors import ProgramError
from mas_edge.protocol.weights import Entry, Layout, pack

WEIGHTS = pack(Layout([Entry("w", [2, 3], "encoder")]), np.ones(6, np.float32))


def test_a_file_is_shown_as_a_page_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "w").write_bytes(WEIGHTS)
    assert main(["inspect", str(tmp_path / "w")]) == 0
    assert "w float32 [2, 3]" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path / "w"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], found["size"], found["sha256"]) == ("safetensors", len(WEIGHTS), digest_of(WEIGHTS))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"PK\x03\x04", "no known kind"), (None, "No such file"), (WEIGHTS[:-1], "truncated")],
)
def test_what_it_cannot_show_ends_in_one_line_that_names_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, reason: str
) -> None:
    file = tmp_path / "thing"
    if content is not None:
        file.write_bytes(content)
    assert main(["inspect", str(file)]) == ProgramError.exit_code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"error: {file}: ")
    assert reason in said.err
    assert said.err.count("\n") == 1
