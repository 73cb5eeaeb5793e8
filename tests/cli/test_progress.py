"""What a person sees of work that takes long, and does not see of work that does not."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest

from mas_edge.cli import progress
from mas_edge.cli.progress import Progress, if_slow


class Terminal(io.StringIO):
    """A screen that keeps what was written."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[io.StringIO, Terminal])
def output(request: pytest.FixtureRequest) -> io.StringIO:
    made: io.StringIO = request.param()
    return made


def wait_for(output: io.StringIO) -> None:
    deadline = time.monotonic() + 30
    while not output.getvalue():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_work_that_takes_long_says_what_it_is(output: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE_S", 0.01)
    with if_slow("looking at [stars]", output):
        wait_for(output)
    assert "looking at [stars]" in output.getvalue()
    if not output.isatty():
        assert output.getvalue() == "looking at [stars] ...\n"


def test_work_that_is_fast_or_fails_at_once_says_nothing(output: io.StringIO) -> None:
    with if_slow("nothing", output):
        pass
    with pytest.raises(ValueError, match="why"), if_slow("nothing", output):
        raise ValueError("why")
    assert output.getvalue() == ""


def test_a_step_says_how_long_it_took_and_how_it_ended(output: io.StringIO, tmp_path: Path) -> None:
    steps = Progress(output)
    with steps.step(f"write {tmp_path}"):
        pass
    with pytest.raises(ValueError, match="why"), steps.step("fail"):
        raise ValueError("why")
    lines = [line for line in output.getvalue().splitlines() if " s  " in line]
    assert [line.split(" s  ")[1] for line in lines] == [f"write {tmp_path}", "fail: failed"]
