"""Brokers for whole jobs; every test here is marked e2e."""

from __future__ import annotations

from pathlib import Path

import pytest

from mas_edge.orchestrator.broker import EmbeddedBroker, ManagedBroker


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts brokers, orchestrators and devices."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="module", params=[pytest.param("mosquitto", marks=pytest.mark.mosquitto), "embedded_broker"])
def running_broker(request: pytest.FixtureRequest) -> ManagedBroker | EmbeddedBroker:
    """Each broker in turn, for all tests of a module at once."""
    running: ManagedBroker | EmbeddedBroker = request.getfixturevalue(request.param)
    return running
