"""What the tests of faults share: a small job, and the process that starts others in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mas_edge.chaos.fleet import Ground
from mas_edge.chaos.harness import Run, kill_anywhere
from mas_edge.chaos.nursery import Nursery
from tests.faults.tiny import make_ground


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts brokers, orchestrators and devices."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """Job, data and engine of the small job."""
    return make_ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="session")
def nursery(ground: Ground) -> Iterator[Nursery]:
    """Starts processes that have imported everything."""
    with Nursery(ground.job_file) as running:
        yield running


@pytest.fixture(scope="session")
def undisturbed(
    ground: Ground, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory, mosquitto_is_here: None
) -> Run:
    """A run to which nothing was done; what it exported is there for all later ones."""
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    run = kill_anywhere(ground, nursery, directory, seed=0, count=0)
    ground.keep_exports(directory)
    return run
