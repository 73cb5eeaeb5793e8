"""The quarantine in an orchestrator: who spoils rounds is left out, shown with the reason, and let back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mas_edge.cli import main
from mas_edge.cli.status import lines_of
from mas_edge.orchestrator import quarantine_desk, view
from mas_edge.orchestrator.quarantine_desk import LOOK_S
from mas_edge.protocol.messages import Receipt
from mas_edge.reporting.standing import standing_of
from tests.orchestrator.small_desk import SmallDesk, a_job
from tests.orchestrator.small_run import LAYOUT, numbers

JOB = a_job(rounds=20, merge_rounds=20, devices_per_round=3, over_selection=1.0, min_reports=1)
SPOILED = np.full(LAYOUT.size, np.nan, np.float32)
HONEST = ("pi-1", "pi-2")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[SmallDesk]:
    desk = SmallDesk(tmp_path, JOB, {"end_round": 20})
    desk.arrive(*HONEST, "liar")
    yield desk
    desk.close()


def train(desk: SmallDesk, number: int, *, spoiled: bool = True) -> None:
    """One round in which the liar sends NaN first of all, or is honest."""
    round_id = f"merged-{number:04d}"
    desk.turn(1.0)
    for device in sorted(desk.told(round_id)):
        lies = spoiled and device == "liar"
        desk.report(device, round_id, SPOILED if lies else numbers(seed=number))
    desk.turn(1.0)
    desk.turn(LOOK_S)


def shut_out(desk: SmallDesk) -> None:
    for number in range(3):
        train(desk, number)


def test_a_device_whose_reports_are_refused_round_after_round_is_left_out_of_the_next(desk: SmallDesk) -> None:
    shut_out(desk)
    assert [set(desk.told(f"merged-{number:04d}")) for number in range(4)] == [{*HONEST, "liar"}] * 3 + [set(HONEST)]
    train(desk, 3)
    assert desk.records()["merged-0003"].refused.keys() == {"liar"}  # it was drawn before the last round was judged
    train(desk, 4)
    assert desk.records()["merged-0004"].selected == list(HONEST)


def test_the_operator_sees_who_and_why(desk: SmallDesk, tmp_path: Path) -> None:
    shut_out(desk)
    desk.reception.close()
    [shown] = [line for line in lines_of(view.read(tmp_path), standing_of(tmp_path)) if line.startswith("  liar")]
    assert "in quarantine: its reports were refused in 3 rounds, the last: " in shown
    assert "not finite" in shown


def test_a_restart_lets_nobody_out(desk: SmallDesk) -> None:
    shut_out(desk)
    desk.restart()
    desk.arrive(*HONEST, "liar")
    for number in range(3, 6):
        train(desk, number)
        assert desk.told(f"merged-{number:04d}") == set(HONEST)


def test_strikes_outlive_a_restart_too(desk: SmallDesk) -> None:
    train(desk, 0)
    train(desk, 1)
    desk.restart()
    desk.arrive(*HONEST, "liar")
    train(desk, 2)
    desk.turn(1.0)
    assert desk.told("merged-0003") == set(HONEST)


def test_what_a_device_in_quarantine_still_offers_is_refused_and_no_round_waits_for_it(desk: SmallDesk) -> None:
    train(desk, 0)
    train(desk, 1)
    desk.turn(1.0)
    desk.report("liar", "merged-0002", SPOILED)
    for device in HONEST:
        desk.report(device, "merged-0002", numbers())
    desk.turn(1.0)
    desk.turn(LOOK_S)
    desk.report("liar", "merged-0003", numbers())
    last = desk.said_to("liar", Receipt)[-1]
    assert (last.verdict, "in quarantine" in last.reason) == ("invalid", True)


def test_the_operator_lets_it_back_while_the_orchestrator_runs(
    desk: SmallDesk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shut_out(desk)
    assert main(["release", "liar", "--state", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"released": "liar", "state": str(tmp_path)}
    desk.turn(LOOK_S)
    assert list((tmp_path / "released").iterdir()) == []
    train(desk, 3, spoiled=False)
    train(desk, 4, spoiled=False)
    assert set(desk.records()["merged-0004"].reports) == {*HONEST, "liar"}


def test_a_release_waits_for_an_orchestrator_that_is_stopped_and_a_kill_loses_none(
    desk: SmallDesk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shut_out(desk)
    assert main(["release", "liar", "--state", str(tmp_path)]) == 0
    with monkeypatch.context() as kill:
        kill.setattr(quarantine_desk, "_remove", _die)
        with pytest.raises(KilledError):
            desk.turn(LOOK_S)
    desk.restart()
    desk.arrive(*HONEST, "liar")
    train(desk, 3, spoiled=False)
    train(desk, 4, spoiled=False)
    assert "liar" in desk.records()["merged-0004"].reports
    assert list((tmp_path / "released").iterdir()) == []


class KilledError(BaseException):
    """The process is gone."""


def _die(_: Path) -> None:
    raise KilledError


def test_who_has_no_strike_cannot_be_released(
    desk: SmallDesk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.turn(1.0)
    assert main(["release", "pi-1", "--state", str(tmp_path)]) == 6
    assert "pi-1 has no strike in the run" in capsys.readouterr().err


def test_an_honest_report_takes_the_strikes_back(desk: SmallDesk) -> None:
    for number in range(6):
        train(desk, number, spoiled=number % 3 != 2)
    desk.turn(1.0)
    assert "liar" in desk.told("merged-0006")


def test_a_job_that_spoils_every_update_puts_nobody_in_quarantine(desk: SmallDesk) -> None:
    for attempt in ("", "-retry1", "-retry2", "-retry3"):
        desk.turn(100.0)
        opened = [round_id for round_id in desk.desk.active if round_id.startswith("merged-0000")]
        assert len(opened) == 1, attempt
        for device in sorted(desk.told(opened[0])):
            desk.report(device, opened[0], SPOILED)
        desk.turn(1.0)
    desk.turn(100.0)
    [last] = desk.desk.active
    assert desk.told(last) == {*HONEST, "liar"}
