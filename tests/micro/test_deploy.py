"""An int8 model on its way into a board: chunks, a power cut between them, health check, slots. Real broker and board.

``data/dense.model`` was made by ``mas_edge.export.micro.export_micro`` out of a network of four linear layers with
random weights (24 inputs, width 8, a class of three and a vector of two); ``data/dense.golden`` holds eight inputs and
what the network itself, in float32, says to them.
"""

from __future__ import annotations

import queue
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from device_runtime.edge.mqtt import Arrived, Event, Link
from device_runtime.micro import int8
from mas_edge.protocol.artifact import describe, encode_chunk
from mas_edge.protocol.messages import (
    Birth,
    HealthCheck,
    Manifest,
    Offer,
    Plan,
    Receipt,
    Refusal,
    Want,
    decode_from_device,
    encode,
)
from mas_edge.protocol.topics import Topics
from mas_edge.protocol.weights import unpack
from tests.brokers import Running
from tests.micro.board import Board, configure, needs_micropython

pytestmark = [pytest.mark.e2e, needs_micropython]
DATA = Path(__file__).with_name("data")
MODEL, GOLDEN = (DATA / "dense.model").read_bytes(), (DATA / "dense.golden").read_bytes()
NAME = "esp"
PATIENCE_S = 30
interpreter: Any = int8  # written for MicroPython, which has no types
_M = TypeVar("_M", Birth, Offer, Refusal, Want)


class Desk:
    """An orchestrator's side by hand: says plans, sends the chunks that are wanted, hears everything."""

    def __init__(self, url: str, fleet: str) -> None:
        self.topics, self.heard = Topics(fleet), queue.Queue[Any]()
        self.chunks_left = 1000  # after so many it falls silent
        self.wanted: list[tuple[str, int]] = []
        self._held: dict[str, tuple[Manifest, bytes]] = {}
        self._seq = 0
        self._link = Link(url, f"desk-{fleet}", self._on_event, session_expiry_s=0)
        for topic in (self.topics.birth(NAME), self.topics.response(NAME)):
            self._link.subscribe(topic)
        self._link.start()
        self._link.wait_connected(PATIENCE_S)

    def hold(self, data: bytes) -> Manifest:
        """Send the chunks of ``data`` to whoever wants them."""
        manifest = describe(data, 1024)
        self._held[manifest.artifact] = manifest, data
        return manifest

    def deploy(self, round_id: str, model: bytes, tolerance: float = 0.05) -> None:
        """Tell the board to try a model."""
        health = HealthCheck(golden=self.hold(GOLDEN), tolerance=tolerance, max_latency_s=5)
        self._say(
            Plan(
                **self._sender(), job="j", round_id=round_id, kind="deploy", group="all", tasks=["a", "b"],
                deadline_s=PATIENCE_S, program=self.hold(model), health=health, format="tflite",
            )
        )  # fmt: skip

    def offer(self) -> Offer:
        """The next offer; it is accepted."""
        offer = self.next(Offer)
        self._say(Receipt(**self._sender(), job=offer.job, round_id=offer.round_id, verdict="accepted"))
        return offer

    def next(self, kind: type[_M]) -> _M:
        """The next message of a kind; what comes between is dropped."""
        while True:
            message = self.heard.get(timeout=PATIENCE_S)
            if isinstance(message, kind):
                return message

    def stop(self) -> None:
        self._link.stop()

    def _say(self, message: Plan | Receipt) -> None:
        self._link.publish(self.topics.command(NAME), encode(message))

    def _sender(self) -> dict[str, Any]:
        self._seq += 1
        return {"sender": "orchestrator", "boot_id": "desk", "seq": self._seq}

    def _on_event(self, event: Event) -> None:
        if not isinstance(event, Arrived):
            return
        message = decode_from_device(event.payload, NAME)
        if isinstance(message, Want):
            self._send(message)
        self.heard.put(message)

    def _send(self, want: Want) -> None:
        manifest, data = self._held[want.artifact]
        for start, stop in want.ranges:
            for index in range(start, stop):
                self.wanted.append((want.artifact, index))
                if self.chunks_left:
                    self.chunks_left -= 1
                    piece = data[index * 1024 : (index + 1) * 1024]
                    self._link.publish(self.topics.chunk(NAME), encode_chunk(manifest, index, piece), qos=0)


@pytest.fixture
def fleet() -> str:
    """One for each test: what a board of another test has retained is not this one's."""
    return f"boards-{secrets.token_hex(4)}"


@pytest.fixture
def board(running_broker: Running, tmp_path: Path, fleet: str) -> Iterator[Board]:
    tasks = {"a": {"kind": "class", "classes": 3}, "b": {"kind": "value"}}
    made = Board(configure(tmp_path, running_broker.url, NAME, fleet, None, tasks=tasks, input_shape=[6, 4]))
    with made:
        yield made


@pytest.fixture
def desk(running_broker: Running, board: Board, fleet: str) -> Iterator[Desk]:
    made = Desk(running_broker.url, fleet)
    made.next(Birth)
    yield made
    made.stop()


def kernel() -> bytes:
    """The weights of the first layer, as they stand in the model."""
    tensors = interpreter.Model(MODEL, ["a", "b"])._tensors
    return next(bytes(tensor.constant) for tensor in tensors if tensor.shape == [8, 24])


def test_a_model_is_tried_and_kept_and_a_bad_one_leaves_it_in_use_and_is_not_tried_again(
    desk: Desk, board: Board, tmp_path: Path
) -> None:
    desk.deploy("one", MODEL)
    report = desk.offer().report
    assert (report.healthy, report.health_reason) == (True, "")
    assert report.engine == "micro"
    assert report.latency_s > 0
    assert (tmp_path / "flash" / "model.a").read_bytes() == MODEL
    bad = MODEL.replace(kernel(), bytes(len(kernel())))
    desk.deploy("two", bad)
    failed = desk.offer().report
    assert failed.healthy is False
    assert "instead of" in failed.health_reason
    desk.deploy("three", bad)
    assert "failed here before" in desk.next(Refusal).reason
    assert (tmp_path / "flash" / "model.a").read_bytes() == MODEL
    assert not (tmp_path / "flash" / "model.b").exists()


def test_a_power_cut_between_two_chunks_costs_the_chunks_that_had_not_come(desk: Desk, board: Board) -> None:
    desk.chunks_left = 2
    desk.deploy("one", MODEL)
    digest = describe(MODEL, 1024).artifact
    while (digest, 2) not in desk.wanted:
        desk.next(Want)
    desk.next(Want)  # the one chunk that did not come is asked for again
    board.power_off()
    before, desk.chunks_left = len(desk.wanted), 1000
    board.power_on()
    desk.next(Birth)
    desk.deploy("one", MODEL)
    assert desk.offer().report.healthy is True
    assert [index for artifact, index in desk.wanted[before:] if artifact == digest] == [2]


def test_the_dense_interpreter_answers_as_the_network_within_the_loss_of_int8() -> None:
    model, golden = interpreter.Model(MODEL, ["a", "b"]), unpack(GOLDEN)
    answers = [model.run([float(value) for value in x.reshape(-1)]) for x in golden["x"]]
    for task in ("a", "b"):
        expected = golden[f"out.{task}"]
        gap = np.array([answer[task] for answer in answers]) - expected
        assert np.linalg.norm(gap) < 0.03 * np.linalg.norm(expected)  # tflite-micro itself: 0.011 and 0.006


def test_the_golden_samples_are_those_of_the_model() -> None:
    assert {name: tensor.shape for name, tensor in unpack(GOLDEN).items()} == {
        "x": (8, 6, 4), "out.a": (8, 3), "out.b": (8, 2),
    }  # fmt: skip
