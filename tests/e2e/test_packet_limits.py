"""A whole job on brokers that carry only small packets, in both versions of MQTT: told of the limit, or finding it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mas_edge.orchestrator.result import result_of
from tests.brokers import PlainMosquitto, Running
from tests.e2e.fleet import Fleet, job_text
from tests.e2e.tap import Tap

SMALLEST = 20480
# Every limit in both versions with the whole matrix of brokers, else the smallest.
ALL = [(limit, version) for limit in (SMALLEST, 131072, 1048576) for version in ("5", "3.1.1")]
LIMITS = ALL if os.environ.get("MAS_EDGE_BROKERS") else ALL[:1]
# Wide enough that weights and updates are several times the smallest limit.
WIDTH = 96


def carry_out_a_job(broker: Running, options: str, directory: Path) -> str:
    """Carry a job out whose artifacts are several packets large; returns the broker's log."""
    text = job_text(min_devices=2, rounds=1, merge_rounds=1).replace("width = 8", f"width = {WIDTH}")
    with Fleet(broker.url + options, directory, text) as fleet, Tap(broker.url, fleet.job.fleet) as tap:
        for name in ("ada", "bob"):
            fleet.device(name)
        assert fleet.orchestrate().join() is True
        snapshot = fleet.snapshot()
        assert [record.outcome for record in snapshot.rounds] == ["complete"] * len(snapshot.rounds)
        assert result_of(snapshot)["deployment"]["share"] == 1.0
        assert tap.chunk_bytes() > 4 * SMALLEST
    return (directory / "broker" / "mosquitto.log").read_text()


@pytest.mark.parametrize(("limit", "version"), LIMITS)
def test_a_job_is_done_in_packets_below_the_limit(
    limit: int, version: str, mosquitto_is_here: None, tmp_path: Path
) -> None:
    options = f"?version={version}" + (f"&max_packet={limit}" if version == "3.1.1" else "")
    with PlainMosquitto(tmp_path, f"max_packet_size {limit}") as broker:
        assert "oversize" not in carry_out_a_job(broker, options, tmp_path)


def test_a_job_finds_a_limit_that_nobody_tells(mosquitto_is_here: None, tmp_path: Path) -> None:
    with PlainMosquitto(tmp_path, f"max_packet_size {SMALLEST}") as broker:
        assert "oversize" in carry_out_a_job(broker, "?version=3.1.1", tmp_path)
