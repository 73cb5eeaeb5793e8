"""The guide to comparisons against the code: its commands, columns, methods and files."""

from __future__ import annotations

import re
import shlex
from itertools import chain

import mas_edge.cli
from mas_edge.federation.methods import names
from mas_edge.mas.controls import every_group, stirling
from mas_edge.simulation.table import to_csv
from tests.docs.pages import ROOT, blocks, in_ticks, rows, section
from tests.simulation.outcomes import comparison, outcome

GUIDE = ROOT / "docs" / "guides" / "compare.md"


def test_every_command_of_the_guide_is_one() -> None:
    """They take minutes: tests/cli/test_compare.py runs the like of them on a tiny job."""
    lines = [line for block in blocks(GUIDE) for line in block.text.splitlines()]
    verbs = [mas_edge.cli.build_parser().parse_args(shlex.split(line)[1:]).verb for line in lines]
    assert verbs == ["data", "compare", "simulate", "compare"]


def test_the_guide_names_every_method() -> None:
    named = chain.from_iterable(in_ticks(" ".join(row)) for row in rows(section(GUIDE, "Which methods")))
    assert {name for name in named if not name.startswith("--")} - {"auto"} == set(names()) - {"every-N"}


def test_the_guide_names_every_column() -> None:
    table = " ".join(row[0] for row in rows(section(GUIDE, "Columns of table.csv")))
    head = to_csv(comparison({("one-by-one", 0): outcome([1.0, 1.0])})).splitlines()[0].split(",")
    assert set(in_ticks(table)) == {re.sub(r"^[ab]\.", "TASK.", column) for column in head}


def test_the_guide_counts_groups_and_splits_rightly() -> None:
    five, nine = (list(map(str, range(n))) for n in (5, 9))
    text = section(GUIDE, "Was it the best split?")
    assert f"{len(every_group(five, 2))} for five tasks" in text
    assert f"{len(every_group(nine, 2))} for nine" in text
    assert f"({stirling(5, 2)} and {stirling(9, 2)})" in text
