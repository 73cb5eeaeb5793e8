"""``mas-edge rollout``, as an operator types it, where nobody serves the run."""

from __future__ import annotations

import getpass
import json
import os
from pathlib import Path

import pytest

from mas_edge.cli import main
from mas_edge.federation.flow import JobState
from mas_edge.federation.rollout import RolloutSpec, RolloutState, Standing
from mas_edge.orchestrator.rollout_store import RolloutStore, Wish
from mas_edge.orchestrator.store import Store
from tests.orchestrator.small_run import JOB


@pytest.fixture
def run(tmp_path: Path) -> Path:
    store = Store(tmp_path)
    store.begin(JOB, JobState(run_id="j-1"))
    store.close()
    return tmp_path


def test_an_order_is_noted_with_its_stages(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--to", "1%", "--then", "0.1", "--then", "100 %", "--halt-on", "5%", "--max-regression", "20%"]
    assert main(["rollout", str(run), *words, "--max-memory", "64M"]) == 0
    assert "nobody serves this run now" in capsys.readouterr().out
    store = RolloutStore(run)
    [(_, wish)] = store.wishes()
    store.close()
    assert wish.spec == RolloutSpec(
        shares=[0.01, 0.1, 1.0], halt_on=0.05, max_regression=0.2, max_memory_bytes=64 * 1024**2
    )


@pytest.mark.parametrize("verb", ["pause", "resume", "abort", "rollback"])
def test_a_word_is_noted(run: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", str(run), verb]) == 0
    assert "noted" in capsys.readouterr().out
    store = RolloutStore(run)
    assert [wish.verb for _, wish in store.wishes()] == [verb]
    store.close()


def test_as_json_an_order_prints_nothing_else(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", str(run), "pause", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["state"], said["standings"]) == (None, {})  # nobody serves the run, so that no rollout stands yet
    [order] = said["orders"]
    assert (order["verb"], order["who"], order["answer"]) == ("pause", f"command line of {getpass.getuser()}", None)


def test_the_status_shows_the_newest_order_and_who_placed_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = RolloutStore(run)
    store.place(Wish(spec=RolloutSpec(shares=[1.0]), who="anna"))
    store.refuse(store.place(Wish(verb="resume", who="ben")), "there is no rollout")
    assert main(["rollout", str(run)]) == 0
    assert capsys.readouterr().out == "order    resume, ben: refused: there is no rollout\n"
    store.place(Wish(verb="pause"))  # by a release that did not write down who
    store.close()
    assert main(["rollout", str(run)]) == 0
    assert capsys.readouterr().out == "order    pause: waits\n"


def test_a_user_without_a_name_may_place_orders(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", dict[int, str]().__getitem__)  # as in a container with --user 12345
    assert main(["rollout", str(run), "pause"]) == 0
    store = RolloutStore(run)
    assert [order.who for order in store.orders(9)] == [f"command line of user {os.getuid()}"]
    store.close()


def test_the_status_of_a_run_without_one_says_how_to_begin(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", str(run)]) == 0
    assert capsys.readouterr().out == "no rollout of j-1 yet: begin one with --to\n"
    assert not (run / "rollouts.db").exists()  # a look leaves no trace


def test_the_status_names_who_failed_and_why(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = RolloutStore(run)
    spec = RolloutSpec(shares=[0.01, 1.0])
    standings = {"pi-1": {"group-0": Standing("failed", "outputs differ"), "group-1": Standing("healthy")}}
    standings |= {f"pi-{number}": {"group-0": Standing("healthy")} for number in (2, 3)}
    store.save(RolloutState(number=4, spec=spec, mode="halted", reason="1 of 3 devices failed"), standings)
    store.close()
    assert main(["rollout", str(run), "status"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "rollout  4: halted, stage 1 of 2 (0.01 > 1 of the devices)",
        "told     3 devices: 1 failed, 2 healthy",
        "sent     0 bytes",
        "because  1 of 3 devices failed",
        "  pi-1                 group-0    failed    outputs differ",
    ]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--to", "10%", "--then", "1%"], 6, "must grow"),
        (["--to", "10%", "--halt-on", "100%"], 6, "--halt-on: expected a number < 1.0"),
        (["--to", "10%", "--soak", "-1"], 6, "--soak: expected a number >= 0.0"),
        (["--to", "10%", "--answer", "inf"], 6, "--answer: expected a number <= 1000000000.0"),
        (["--to", "10%", "--seed", str(2**60)], 6, "--seed: expected a whole number <= 9007199254740992"),
        (["--then", "100%"], 6, "--then belongs to a rollout that is begun: give --to as well"),
        (["--halt-on", "3%"], 6, "--halt-on belongs to"),
        (["pause", "--max-memory", "64M"], 6, "--max-memory belongs to"),
        (["pause", "--to", "10%"], 6, "either --to"),
    ],
)
def test_a_rollout_that_cannot_be_is_one_line(
    run: Path, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rollout", str(run), *words]) == code
    error = capsys.readouterr().err
    assert (error.count("\n"), said in error) == (1, True)


@pytest.mark.parametrize(
    ("share", "said"),
    [
        ("half", "'half' is no share; expected such as 10% or 0.1"),
        ("1", "'1' may be meant as 1% or as 100%: write which"),
        ("10", "as 10% or as 1000%"),
        ("0", "'0' is no stage; expected more than 0% and at most 100% of the devices"),
        ("200%", "'200%' is no stage"),
    ],
)
def test_a_share_that_is_none_is_a_matter_of_usage(
    run: Path, share: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["rollout", str(run), "--to", share])
    assert said in capsys.readouterr().err


def test_a_directory_without_a_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollout", str(tmp_path), "--to", "1%"]) == 6
    assert "no state in" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
