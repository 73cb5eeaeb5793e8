"""A board in a job: the real MicroPython with a board's heap, a real broker, the real orchestrator, Python devices."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from mas_edge.federation.flow import PHASES
from mas_edge.job import parse_job
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.protocol.artifact import decode_chunk, digest_of
from mas_edge.protocol.messages import Manifest
from mas_edge.protocol.weights import ENCODER, Vector, unpack
from tests.brokers import Running
from tests.e2e.fleet import INPUT_SHAPE, TASKS, Fleet, job_text, until
from tests.e2e.tap import Tap
from tests.micro.board import Board, configure, needs_micropython

pytestmark = [pytest.mark.e2e, needs_micropython]
KINDS = {"sign": {"kind": "class", "classes": 2}, "mean": {"kind": "value"}, "way": {"kind": "direction"}}
ENGINES = {"ada": "torch", "bob": "onnxruntime", "cyd": "executorch", "esp": "micro"}
SAMPLES = {"ada": 32, "bob": 48, "cyd": 32, "esp": 32}  # to train on: one counts for more than the others
LEFT_OUT = '[[tasks]]\nname = "mean"\nkind = "value"\n'  # exporting for four engines takes twice as long with it
MERGED_EVALUATION = PHASES.index("merged_evaluation")


def board_in(fleet: Fleet, name: str = "esp") -> Board:
    """A board of this fleet with labels for every task."""
    folder, tasks = fleet.directory / name, {task: KINDS[task] for task in TASKS}
    path = configure(
        folder, fleet.url, name, fleet.job.fleet, fleet.data(name), tasks=tasks, input_shape=list(INPUT_SHAPE)
    )
    return Board(path)


@pytest.mark.skipif(find_spec("executorch") is None, reason="needs executorch")
def test_a_board_takes_part_in_every_round_beside_python_devices_on_three_engines(
    running_broker: Running, tmp_path: Path
) -> None:
    text = f"engines = {list(ENGINES.values())}\n" + job_text(per_round=4, min_devices=4)
    text = text.replace(LEFT_OUT, "")
    assert len(parse_job(text).tasks) == len(TASKS) - 1
    with Fleet(running_broker.url, tmp_path, text) as fleet, board_in(fleet) as board:
        with Tap(fleet.url, fleet.job.fleet) as tap:
            fleet.device("ada")
            for name in ("bob", "cyd"):
                fleet.device_process(name, train=SAMPLES[name], engine=ENGINES[name])
            fleet.serve()  # a process: it is in the middle of its work when this ends
            # The rounds of the groups that follow are the same with fewer heads, after four engines' exports for each
            until(lambda: PHASES.index(fleet.snapshot().phase) > MERGED_EVALUATION, f"the rounds: {board.console}")
            snapshot = fleet.snapshot()
        trained = [record for record in snapshot.rounds if record.kind == "train"]
        assert len(trained) == 2
        for record in snapshot.rounds:
            assert {name: report.engine for name, report in record.reports.items()} == ENGINES
        for record in trained:
            assert record.reports["esp"].samples == {ENCODER: 0, **dict.fromkeys(record.tasks, 32)}
        first, last = [record for record in snapshot.rounds if record.kind == "evaluate"]
        assert all(last.losses[task] < first.losses[task] for task in trained[0].tasks)
        assert_counted(tap, trained[0], trained[1])


def assert_counted(tap: Tap, record: RoundRecord, following: RoundRecord) -> None:
    """The weights after a round are the mean of its updates by samples: four of every head, three of the encoder."""
    updates = {name: unpack(tap.update(name, tap.offers(name)[record.round_id])) for name in ENGINES}
    plan = next(plan for device, plan in tap.plans() if device == "esp" and plan.round_id == following.round_id)
    assert plan.weights is not None
    weights = unpack(fetched(tap, plan.weights.manifest))
    heads = {name for name in weights if name.startswith("heads.")}
    assert updates["esp"].keys() == heads
    assert 0 < len(heads) < len(weights)
    for name, tensor in weights.items():
        counted = {device: SAMPLES[device] for device, update in updates.items() if name in update}
        assert len(counted) == (4 if name in heads else 3)
        np.testing.assert_allclose(tensor, mean_of(updates, counted, name), rtol=1e-5, atol=1e-7)
        if name in heads:  # and the board's share is to be seen
            others = {device: count for device, count in counted.items() if device != "esp"}
            assert not np.allclose(tensor, mean_of(updates, others, name), rtol=1e-5, atol=1e-7), name


def mean_of(updates: dict[str, dict[str, Vector]], counted: dict[str, int], name: str) -> Vector:
    """The mean of one tensor over these devices, by their samples."""
    tensors = [updates[device][name].astype(np.float64) for device in counted]
    mean: Vector = np.average(tensors, axis=0, weights=list(counted.values())).astype(np.float32)
    return mean


def fetched(tap: Tap, manifest: Manifest) -> bytes:
    """An artifact out of the pieces that the board fetched."""
    prefix, topic = bytes.fromhex(manifest.artifact)[:16], tap.topics.chunk("esp")
    chunks = [decode_chunk(arrived.payload) for arrived in tap.heard() if arrived.topic == topic]
    pieces = {chunk.index: bytes(chunk.data) for chunk in chunks if chunk.artifact_prefix == prefix}
    data = b"".join(pieces[index] for index in sorted(pieces))
    assert digest_of(data) == manifest.artifact
    return data
