"""The guide to the rooms, followed from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mas_edge.datasets.rooms.targets import TASKS
from mas_edge.datasets.rooms.units import SCALES
from tests.docs.pages import ROOT, blocks, rows, section
from tests.docs.reader import Reader
from tests.docs.test_guides import empty_folder

__all__ = ["empty_folder"]  # a fixture

GUIDE = ROOT / "docs" / "guides" / "rooms.md"
CARD = ROOT / "models" / "rooms.md"


@pytest.mark.usefixtures("empty_folder")
def test_the_guide_does_what_it_says(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    reader.follow(GUIDE)
    assert reader.exit_codes == [0, 0, 0, 0]
    assert reader.done == len(blocks(GUIDE))


def test_the_card_lists_the_tasks_and_units_of_the_code() -> None:
    tasks = section(CARD, "Tasks")
    assert [(row[0], row[1]) for row in rows(tasks)] == [(kind.letter, kind.name) for kind in TASKS]
    assert {int(row[0]): [float(unit.strip("| ")) for unit in row[1:]] for row in rows(tasks, 1)} == {
        size: [scales[kind.name].unit for kind in TASKS] for size, scales in SCALES.items()
    }


def test_the_guide_names_every_letter() -> None:
    assert re.findall(r"\b([a-z]) ([a-z]+)", section(GUIDE, "Choose").split("letters: ")[1].split("|")[0]) == [
        (kind.letter, kind.name) for kind in TASKS
    ]
