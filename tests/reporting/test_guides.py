"""The guides to the report and to the terminal: what they tell to type works on a run, and what they list is there."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from mas_edge.cli import build_parser, main
from mas_edge.reporting.logs import CONTEXT, FILE_BYTES, OLDER_FILES
from tests.docs.pages import ROOT, blocks, in_ticks, rows, section
from tests.orchestrator.small_run import STATE
from tests.reporting.small_runs import MERGED, REST, write_result, write_run

GUIDES = ROOT / "docs" / "guides"
REPORT, TERMINAL = GUIDES / "report.md", GUIDES / "terminal.md"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the runs that the guides speak of."""
    write_run(tmp_path / "runs" / "watch", MERGED + REST)
    write_run(tmp_path / "demo-out" / "state", MERGED)
    write_result(tmp_path / "demo-out", STATE.run_id, 2.0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("guide", [REPORT, TERMINAL], ids=lambda guide: guide.stem)
def test_what_a_guide_tells_to_type_works(guide: Path, runs: Path) -> None:
    done = 0
    for block in blocks(guide):
        if block.language == "python":
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exec(compile(block.text, guide.name, "exec"), {})
            assert said.getvalue().startswith("{'a': -0.8")
        elif block.language == "sh":
            for line in block.text.splitlines():
                words = shlex.split(line)[1:]
                build_parser().parse_args(words)
                assert words[0] == "serve" or main(words) == 0, line
                done += 1
    assert done >= 3
    assert (runs / "report.html").exists() == (guide == REPORT)


def test_the_fields_of_a_line_of_the_log_are_listed() -> None:
    listed = [in_ticks(row[0])[0] for row in rows(section(TERMINAL, "Logs"))]
    assert listed == ["time", "level", "message", *CONTEXT, "logger", "error"]
    text = " ".join(TERMINAL.read_text(encoding="utf-8").split())
    assert f"at {FILE_BYTES // 10**6} MB it is renamed" in text
    assert f"more than {FILE_BYTES * (1 + OLDER_FILES) // 10**6} MB" in text


def test_the_guides_lead_somewhere() -> None:
    for guide in (REPORT, TERMINAL):
        for target in re.findall(r"\]\(([^)#]+)", guide.read_text(encoding="utf-8")):
            assert (guide.parent / target).exists(), f"{guide.name} links to {target}"
