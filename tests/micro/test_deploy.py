"""An int8 model on its way into a board: chunks, a power cut between them, health check, slots.

Broker and board are real.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from device_runtime.micro import deploy as _deploy
from device_runtime.micro import flash as _flash
from device_runtime.micro import tflite as _tflite
from mas_edge.protocol.artifact import describe, digest_of
from mas_edge.protocol.messages import Birth, Refusal, Want
from tests.brokers import PlainMosquitto, Running
from tests.e2e.fleet import until
from tests.micro.board import Board, configure, needs_micropython
from tests.micro.desk import GOLDEN, MODEL, NAME, Desk

pytestmark = [pytest.mark.e2e, needs_micropython]
deploy: Any = _deploy
flash: Any = _flash
tflite: Any = _tflite  # written for MicroPython, which has no types


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
    graph = tflite.Graph(BytesIO(MODEL))
    layer = next(each for each in graph.operators() if each.tensor(1).shape == (8, 24))
    place = layer.weights(layer.tensor(1))
    return MODEL[place : place + 8 * 24]


def test_a_model_is_tried_and_kept_and_a_bad_one_leaves_it_in_use_and_is_not_tried_again(
    desk: Desk, board: Board, tmp_path: Path
) -> None:
    desk.deploy("one", MODEL)
    report = desk.offer().report
    assert (report.healthy, report.health_reason) == (True, "")
    assert report.engine == "micro"
    assert report.latency_s > 0
    assert (tmp_path / "flash" / "all.a").read_bytes() == MODEL
    bad = MODEL.replace(kernel(), bytes(len(kernel())))
    desk.deploy("two", bad)
    failed = desk.offer().report
    assert failed.healthy is False
    assert "instead of" in failed.health_reason
    desk.deploy("three", bad)
    assert "failed here before" in desk.next(Refusal).reason
    assert (tmp_path / "flash" / "all.a").read_bytes() == MODEL
    assert not (tmp_path / "flash" / "all.b").exists()


def test_each_group_has_its_model_and_a_rollback_leads_to_the_one_before(desk: Desk, board: Board) -> None:
    second = MODEL + bytes(4)  # the same to the board, and another to everybody else
    first_digest, second_digest = digest_of(MODEL), digest_of(second)
    for number, (group, model) in enumerate([("all", MODEL), ("other", second), ("all", second)]):
        desk.deploy(f"r{number}", model, group=group)
        assert desk.offer().report.model == digest_of(model)
    assert desk.next(Birth).models == {"all": second_digest, "other": second_digest}
    for round_id in ("back", "back-again"):  # the second time it is not in use any more
        desk.undo(round_id, second)
        report = desk.offer().report
        assert (report.healthy, report.model) == (True, first_digest)
    desk.undo("too-far", MODEL)
    report = desk.offer().report
    assert (report.healthy, report.model) == (False, first_digest)
    assert "no model before" in report.health_reason
    board.power_off()
    board.power_on()
    assert desk.next(Birth).models == {"all": first_digest, "other": second_digest}


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


def test_a_model_that_the_flash_damaged_between_two_starts_comes_again(
    desk: Desk, board: Board, tmp_path: Path
) -> None:
    desk.deploy("one", MODEL)
    assert desk.offer().report.healthy is True
    board.power_off()
    slot = tmp_path / "flash" / "all.a"
    slot.write_bytes(MODEL[:-1] + b"\x5a")
    board.power_on()
    while desk.next(Birth).models != {}:
        pass  # those of its first life
    desk.deploy("two", MODEL)
    report = desk.offer().report
    assert (report.healthy, report.model) == (True, digest_of(MODEL))


def test_a_group_that_no_file_can_be_called_is_refused_and_the_board_lives_on(desk: Desk, board: Board) -> None:
    desk.deploy("one", MODEL, group="../x")
    assert "'../x' is not a valid name" in desk.next(Refusal).reason
    desk.deploy("two", MODEL)
    assert desk.offer().report.healthy is True


def test_a_trial_that_is_called_off_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel is not the model's fault: after two of them, and a start, it would never be tried again."""
    ticks = SimpleNamespace(ticks_us=lambda: 0, ticks_diff=int.__sub__)  # of MicroPython
    monkeypatch.setattr(deploy, "time", ticks)
    digest, golden = digest_of(MODEL), digest_of(GOLDEN)
    for _ in range(flash.MAX_STARTS + 1):
        models = flash.Models(str(tmp_path), flash.State(str(tmp_path)))
        store = flash.Store(str(tmp_path / "artifacts"), models)
        for data in (MODEL, GOLDEN):
            store.put([data], 1024)
        health = {"golden": {"artifact": golden}, "tolerance": 0.05, "max_latency_s": 5}
        plan = {"program": {"artifact": digest}, "tasks": ["a", "b"], "health": health}
        slots = models.slots("all")
        assert slots.why_refused(digest) == ""
        work = deploy.Trial({"input_shape": [6, 4]}, store, models, None).run(slots, plan, {})
        next(work)
        work.close()


def test_a_broker_that_was_away_in_the_middle_of_a_download_costs_what_had_not_come(tmp_path: Path) -> None:
    with PlainMosquitto(tmp_path / "broker") as broker:
        desk = Desk(broker.url, "boards")
        tasks = {"a": {"kind": "class", "classes": 3}, "b": {"kind": "value"}}
        with Board(configure(tmp_path, broker.url, NAME, "boards", None, tasks=tasks, input_shape=[6, 4])) as board:
            desk.next(Birth)
            desk.chunks_left = 2
            desk.deploy("one", MODEL)
            digest = describe(MODEL, 1024).artifact
            while desk.next(Want).ranges != [(2, 3)]:
                pass  # until it has the other two, and asks again for the one that did not come
            broker.stop()
            until(lambda: "cannot connect" in board.console, "a broker that is away", 30)
            before, desk.chunks_left = len(desk.wanted), 1000
            broker.start()
            report = desk.offer().report
            assert (report.healthy, report.model) == (True, digest)
            assert {index for artifact, index in desk.wanted[before:] if artifact == digest} == {2}
        desk.stop()
