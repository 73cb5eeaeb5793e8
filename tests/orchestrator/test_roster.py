"""What is written down of devices: many at a time, and nothing is missing when the orchestrator ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from mas_edge.orchestrator.roster import SAVE_S
from tests.orchestrator.small_desk import SmallDesk


@pytest.fixture
def here(tmp_path: Path) -> SmallDesk:
    return SmallDesk(tmp_path)


def written(here: SmallDesk) -> dict[str, bool]:
    return {record.name: record.online for record in here.store.devices()}


def test_the_first_is_written_at_once_and_those_that_follow_together(here: SmallDesk) -> None:
    here.arrive("pi-1")
    here.turn()
    here.arrive("pi-2")
    here.turn()
    here.arrive("pi-3")
    here.turn()
    assert written(here) == {"pi-1": True}
    here.turn(wait=SAVE_S)
    assert written(here) == {"pi-1": True, "pi-2": True, "pi-3": True}
    here.close()


def test_an_orchestrator_that_ends_has_written_down_what_it_knew(here: SmallDesk) -> None:
    here.arrive("pi-1", "pi-2")
    here.turn()
    here.arrive("pi-3")
    here.leave("pi-1")
    here.reception.close()  # as run() does before it returns
    assert written(here) == {"pi-1": False, "pi-2": True, "pi-3": True}
    here.close()
