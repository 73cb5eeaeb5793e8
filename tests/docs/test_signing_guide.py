"""The guide to signing names the lives of signatures that the code gives them."""

from __future__ import annotations

from mas_edge.fleet.signing.ceremony import OFFLINE_LIFE
from mas_edge.fleet.signing.repository import LIVES
from tests.docs.pages import ROOT, rows, section

GUIDE = ROOT / "docs" / "guides" / "signing.md"


def test_the_lives_of_signatures_are_those_of_the_code() -> None:
    ends = {row[0]: row[2] for row in rows(section(GUIDE, "What signs what"))}
    days = {role: life.days for role, life in LIVES.items()}
    assert ends["root"] == ends["targets"] == "a year"
    assert OFFLINE_LIFE.days == 365
    assert ends["models"] == f"{days['models']} days"
    assert ends["snapshot, timestamp"] == f"{days['snapshot']} days, {days['timestamp']} day"
