"""The guides to the report and to the terminal: what they list is there."""

from __future__ import annotations

import re

from mas_edge.reporting.logs import CONTEXT, FILE_BYTES, OLDER_FILES
from tests.docs.pages import ROOT, in_ticks, rows, section

GUIDES = ROOT / "docs" / "guides"
REPORT, TERMINAL = GUIDES / "report.md", GUIDES / "terminal.md"


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
