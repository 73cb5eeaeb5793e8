"""``mas-edge report``: every number is a record's, the page needs nothing else, and a run that goes on has one too."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from mas_edge.cli import main
from mas_edge.job import parse_job
from mas_edge.mas.merge import MERGED as MERGED_NAME
from mas_edge.reporting.numbers import RunNumbers
from mas_edge.reporting.page import count, duration, joules, loss, page_of, percent, size, spaced
from mas_edge.reporting.reading import read_numbers
from tests.orchestrator.small_run import JOB
from tests.reporting.small_runs import MERGED, REST, trained, write_result, write_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The --out of a demo whose run is done."""
    out = tmp_path_factory.mktemp("out")
    write_run(out / "state", MERGED + REST)
    write_result(out, "j-1", 2.0)
    return out


@pytest.fixture(scope="module")
def numbers(finished: Path) -> RunNumbers:
    return read_numbers(finished)


@pytest.fixture(scope="module")
def page(numbers: RunNumbers) -> str:
    return page_of(numbers)


def test_a_task_has_its_losses_of_every_stage_and_what_they_are_of_the_constant(numbers: RunNumbers) -> None:
    a, b = numbers.tasks
    assert {stage: found.loss for stage, found in a.stages.items()} == {"untrained": 1.0, "merged": 0.5, "split": 0.2}
    assert [found.of_constant for found in a.stages.values()] == [0.5, 0.25, 0.1]
    assert a.change == pytest.approx(-0.8)
    assert (a.group, a.train_samples) == ("group-1", 7)
    assert (b.constant_loss, b.stages["split"].of_constant, b.group) == (None, None, "group-0")
    assert [(point.round, point.group, point.loss) for point in b.curve] == [
        (1, MERGED_NAME, 0.25), (2, MERGED_NAME, 0.125), (3, "group-0", pytest.approx(0.25 / 3)),
    ]  # fmt: skip


def test_sums_are_those_of_all_rounds_and_of_each_device(numbers: RunNumbers) -> None:
    assert (numbers.sent_bytes, numbers.received_bytes) == (6000, 2400)
    assert numbers.energy.total == {"measured": 15.0}
    assert (numbers.merged_rounds, numbers.split_rounds, numbers.abandoned_rounds) == (2, 3, 1)
    one, two = numbers.devices
    assert (one.reports, one.joules, one.cpu_seconds) == (5, {"measured": 5.0}, 7.5)
    assert (two.selected, two.reports, two.refused, two.joules) == (10, 5, 1, {"measured": 10.0})
    assert sum(phase.rounds for phase in numbers.phases) == len(numbers.rounds) == 10


def test_the_phases_follow_each_other_from_the_start_to_the_end(numbers: RunNumbers) -> None:
    names = ["prepare", "initial_evaluation", "merge", "merged_evaluation", "groups", "group_evaluation"]
    assert [phase.name for phase in numbers.phases] == names
    ends = [phase.ended for phase in numbers.phases]
    assert [phase.began for phase in numbers.phases] == [numbers.started, *ends[:-1]]
    assert ends[-1] == numbers.finished


def test_a_pair_that_nobody_measured_is_none_and_the_why_of_the_split_is_the_mean_over_columns(
    numbers: RunNumbers,
) -> None:
    assert numbers.affinity is not None
    assert numbers.split is not None
    assert numbers.affinity.rounds[0].matrix == [[0.5, None], [-1e-4, 0.5]]
    assert [(each.task, each.within, each.across) for each in numbers.split.received] == [
        ("b", None, 2e-4), ("a", None, -1e-4),
    ]  # fmt: skip


def test_events_of_note_are_the_warnings_and_the_job_file_is_the_job(numbers: RunNumbers) -> None:
    assert [event.text for event in numbers.events] == ["group-0-0003: abandoned {'pi-2': 'too hot <b>'}"]
    assert parse_job(numbers.job_file) == JOB


class Outside(HTMLParser):
    """Whatever a page would have to fetch or run, and whether its elements are closed."""

    VOID = ("meta", "br")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        bad = [name for name, value in attrs if name.startswith("on") or "//" in (value or "")]
        self.found += [tag] if tag in ("script", "link", "iframe", "img") or bad else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_sound_and_needs_nothing_else(page: str) -> None:
    read = Outside()
    read.feed(page)
    assert read.found == []
    assert read.open == []
    assert len(read.ids) == len(set(read.ids))
    assert set(re.findall(r"url\(#([^)]+)\)|xlink:href=\"#([^\"]+)\"", page)) <= {
        pair for name in read.ids for pair in ((name, ""), ("", name))
    }


def test_the_page_shows_the_numbers_and_no_text_of_a_device_becomes_markup(page: str, numbers: RunNumbers) -> None:
    for task in numbers.tasks:
        for stage in task.stages.values():
            assert f">{loss(stage.loss)}" in page
    assert "too hot &lt;b&gt;" in page
    assert "too hot <b>" not in page
    assert "no allowed split has a larger one" in page
    assert "15.0 J" in page
    assert "6 kB sent, 2.4 kB received" in page
    assert "name = &#34;j&#34;" in page


def test_no_stand_in_for_a_colour_is_left(page: str) -> None:
    assert not re.search(r"#0[1-9a-f]0[1-9a-f]0[1-9a-f]\b", page)


def test_the_json_is_the_same_numbers_and_neither_tears_a_file_apart(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "report.html"
    assert main(["report", str(finished), "--json", "--out", str(out)]) == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [task["stages"]["split"]["loss"] for task in printed["tasks"]] == [0.2, 0.25]
    assert "This run is not finished" not in out.read_text(encoding="utf-8")
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("rounds", "phase", "words"),
    [
        ([], "prepare", ["in phase: prepare", "No training round has closed yet", "No affinity was measured yet"]),
        (MERGED, "merge", ["2 of 2 merged rounds", "The split is not decided yet", "the mean is taken at the split"]),
        ([*MERGED, *REST[:3]], "groups", ["2 of 4 rounds of the groups"]),
    ],
)
def test_a_run_that_is_not_finished_says_so_and_reports_what_there_is(
    tmp_path: Path, rounds: list[Any], phase: str, words: list[str]
) -> None:
    numbers = read_numbers(write_run(tmp_path, rounds, phase))
    text = page_of(numbers)
    assert (numbers.done, numbers.finished) == (False, None)
    assert numbers.phases[-1].ended is None
    for each in ["This run is not finished", *words]:
        assert each in text


def test_a_run_that_was_aborted_says_so_and_promises_nothing_more(tmp_path: Path) -> None:
    text = page_of(read_numbers(write_run(tmp_path, MERGED, "aborted")))
    assert "This run was aborted" in text
    assert ">aborted</span>" in text
    for each in ["not finished", "so far", "in phase"]:
        assert each not in text


def test_a_unit_is_named_only_where_it_is_another_than_one(tmp_path: Path, page: str) -> None:
    assert "in units of 10<sup>-4</sup>" in page
    large = trained(0, affinity=[[0.5, 2.0], [-1.0, 0.5]])
    assert "in units of" not in page_of(read_numbers(write_run(tmp_path, [large], "merge")))


def test_one_task_and_a_matrix_of_zeros_have_a_page_too(tmp_path: Path) -> None:
    flat = trained(0, affinity=[[0.0, 0.0], [0.0, 0.0]])
    assert "Affinity" in page_of(read_numbers(write_run(tmp_path / "flat", [flat], "merge")))
    alone = replace(JOB, tasks=JOB.tasks[:1])
    single = trained(0, tasks=["a"], losses={"a": 1.0}, affinity=[[0.0]], affinity_devices=[[1]])
    assert "1</b>task<" in page_of(read_numbers(write_run(tmp_path / "alone", [single], "merge", alone)))


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [(["nowhere"], 6, "no state in"), (["{run}", "--out", "{run}/state/state.db/x.html"], 6, "cannot write")],
)
def test_what_cannot_be_is_one_clear_line(
    finished: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    assert main(["report", *(word.format(run=finished) for word in arguments)]) == code
    assert said in capsys.readouterr().err


def test_digits_are_those_that_people_use() -> None:
    assert [duration(s) for s in (None, 0.04, 12, 200, 7500, 273600)] == [
        "–", "0.0 s", "12 s", "3 min 20 s", "2 h 5 min", "3 d 4 h",
    ]  # fmt: skip
    assert [size(n) for n in (0, 999, 1500, 2_340_000, 5e12)] == ["0 B", "999 B", "1.5 kB", "2.34 MB", "5 TB"]
    assert [loss(v) for v in (None, 0.0, 1.23456, -6.857e-5)] == ["–", "0", "1.235", "−6.857·10⁻⁵"]
    assert [percent(v) for v in (None, -0.5, 1.024)] == ["–", "−50 %", "102 %"]
    assert [count(v) for v in (12, 3456, 14.1e9, 9e12)] == ["12", "3.46 k", "14.1 G", "9 T"]
    assert joules({"measured": 2.0, "estimated": 1234.5}) == "2.0 J + ≈ 1,234.5 J"
    assert joules({}) == "–"
    assert spaced(list(range(100)), 4) == [0, 33, 66, 99]
