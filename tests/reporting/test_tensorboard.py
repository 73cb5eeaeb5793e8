"""TensorBoard's own reader finds every round once in the event files, whenever their writer came and went."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from mas_edge.orchestrator.store import Store
from mas_edge.protocol.errors import ServerError
from mas_edge.reporting import following
from mas_edge.reporting.following import event_files
from mas_edge.reporting.tensorboard import picture_of
from tests.orchestrator.small_run import STATE
from tests.reporting.small_runs import MERGED, REST, add_rounds, write_run

PATIENCE_S = 60.0  # of a loaded machine; it takes about a second


def read(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def curve(found: EventAccumulator, tag: str) -> list[tuple[int, object]]:
    return [(event.step, pytest.approx(event.value)) for event in found.Scalars(tag)]  # float32 in the file


def steps_of(board: Path, tag: str) -> list[int]:
    """As far as they are written."""
    folder = board / STATE.run_id
    found = read(folder) if list(folder.glob("events*")) else None
    return [event.step for event in found.Scalars(tag)] if found and tag in found.Tags()["scalars"] else []


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> EventAccumulator:
    """What is read of a whole run."""
    place = tmp_path_factory.mktemp("whole")
    with event_files(write_run(place / "state", MERGED + REST), place / "board"):
        pass
    return read(place / "board" / STATE.run_id)


def test_a_task_has_one_curve_through_the_split_and_its_test_losses_stand_at_their_rounds(
    found: EventAccumulator,
) -> None:
    assert curve(found, "train_loss/a") == [(1, 0.5), (2, 0.25), (3, 0.5 / 3), (4, 0.125)]
    assert curve(found, "train_loss/b") == [(1, 0.25), (2, 0.125), (3, 0.25 / 3)]  # its last round was abandoned
    assert curve(found, "test_loss/a") == [(0, 1.0), (2, 0.5), (4, 0.2)]
    assert curve(found, "test_metric/b") == [(0, 0.5), (2, 0.5), (4, 0.5)]


def test_cost_affinity_and_devices_are_there_by_network_and_round(found: EventAccumulator) -> None:
    assert curve(found, "train_round/joules_measured/merged") == [(1, 3.0), (2, 3.0)]
    assert curve(found, "train_round/bytes_received/group-1") == [(3, 400.0), (4, 400.0)]
    assert curve(found, "train_round/selected_devices/group-0") == [(3, 2.0)]
    assert curve(found, "affinity/b_to_a") == [(1, -1e-4), (2, -1e-4)]
    assert [image.step for image in found.Images("affinity")] == [1, 2]
    named = [event.tensor_proto.string_val[0] for event in found.Tensors("selected_devices/merged/text_summary")]
    assert set(named) == {b"pi-1, pi-2"}
    assert b"group-1: a" in found.Tensors("split/text_summary")[0].tensor_proto.string_val[0]


def test_a_writer_that_was_killed_and_started_again_doubles_no_step_and_needs_no_pytorch(tmp_path: Path) -> None:
    state, board = write_run(tmp_path / "state", MERGED, "merge"), tmp_path / "board"
    folder = board / STATE.run_id
    command = [sys.executable, "-m", "mas_edge.reporting.tensorboard", str(state), str(board)]
    with subprocess.Popen(command) as writer:
        until(lambda: any(path.stat().st_size > 1000 for path in folder.glob("events*")))
        assert "torch" not in Path(f"/proc/{writer.pid}/maps").read_text()
        writer.kill()
    live = read(folder)  # as of a TensorBoard that looks on all the time
    store = Store(state)
    add_rounds(store, STATE, REST)
    store.close()
    with event_files(state, board):
        pass
    assert len(list(folder.glob("events*"))) == 2
    live.Reload()
    for accumulated in (live, read(folder)):
        assert [event.step for event in accumulated.Scalars("train_loss/a")] == [1, 2]
        assert [event.step for event in accumulated.Scalars("train_loss/a/group-1")] == [3, 4]  # no split is stored
        assert [event.step for event in accumulated.Scalars("test_round/seconds/merged")] == [0, 2]
    with event_files(state, board):
        pass
    assert len(list(folder.glob("events*"))) == 2, "they do not pile up"


def test_rounds_are_written_while_the_run_goes_on(tmp_path: Path) -> None:
    state, board = write_run(tmp_path / "state", MERGED[:2], "merge"), tmp_path / "board"
    with event_files(state, board):
        until(lambda: steps_of(board, "train_loss/a") == [1])
        store = Store(state)
        add_rounds(store, STATE, MERGED[2:])
        store.close()
        until(lambda: steps_of(board, "train_loss/a") == [1, 2])


def test_a_writer_that_fails_is_a_warning_and_ends_no_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "state.db").write_bytes(b"not a database, and longer than the header of one" * 9)
    with caplog.at_level(logging.WARNING), event_files(tmp_path / "state", tmp_path / "board"):
        until(lambda: (tmp_path / "board" / following.LOG).stat().st_size > 0)
    assert "cannot be used: file is not a database" in caplog.text


def test_what_is_missing_is_said_before_the_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ServerError, match="cannot be written to"), event_files(tmp_path, tmp_path / "file"):
        pass
    monkeypatch.setattr(following, "find_spec", lambda name: None if name == "tensorboardX" else find_spec(name))
    with pytest.raises(ServerError, match="pip install"), event_files(tmp_path, tmp_path / "board"):
        pass


def test_the_picture_is_blue_where_a_task_helps_red_where_it_harms_and_grey_on_the_diagonal() -> None:
    shown = picture_of(np.array([[9.0, 1.0], [-1.0, 9.0]]))
    assert shown.shape == (288, 288, 3)
    assert [tuple(shown[y, x]) for y, x in ((0, 0), (0, 287), (287, 0))] == [
        (220, 220, 220), (36, 99, 190), (201, 62, 52),
    ]  # fmt: skip
    assert (picture_of(np.zeros((3, 3))) >= 220).all()
