"""Limits from a file, and the buckets that hold them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.cli import main
from mas_edge.orchestrator.gate import Bucket
from mas_edge.orchestrator.limits import Limits, load_limits
from mas_edge.protocol.errors import JobError
from tests.hostile.make_corpus import JOB


def written(directory: Path, text: str) -> Path:
    path = directory / "limits.toml"
    path.write_text(text)
    return path


def test_a_file_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    assert load_limits(written(tmp_path, "devices = 50\nresend_s = 1.5\n")) == Limits(devices=50, resend_s=1.5)
    assert load_limits(written(tmp_path, "")) == Limits()


REFUSED = {
    "an unknown key": ("device = 3", "unknown field `device`; allowed there: devices, "),
    "a word": ('devices = "many"', r"Expected `int`, got `str` - at `\$.devices`"),
    "none at all": ("devices = 0", "Expected `int` >= 1"),
    "a rate below zero": ("messages_per_s = -1.0", "Expected `float` > 0.0"),
    "no number": ("messages_per_s = nan", "messages_per_s"),
    "no TOML": ("devices: 3", "limits.toml: "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_is_refused_with_the_key_and_what_is_allowed(case: str, tmp_path: Path) -> None:
    text, reason = REFUSED[case]
    with pytest.raises(JobError, match=reason):
        load_limits(written(tmp_path, text))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="cannot be read: No such file"):
        load_limits(tmp_path / "limits.toml")


amounts = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 20)), max_size=60)


@given(st.floats(1, 20), st.floats(0.1, 5), amounts)
def test_a_bucket_never_gives_more_than_it_held_and_what_ran_in(
    most: float, rate: float, asked: list[tuple[float, float]]
) -> None:
    bucket, now, given_out = Bucket(most, rate), 0.0, 0.0
    for pause, amount in asked:
        now += pause
        if bucket.take(amount, now):
            given_out += amount
        assert given_out <= (most + rate * now) * (1 + 1e-9)


def test_a_clock_that_goes_back_fills_no_bucket() -> None:
    bucket = Bucket(1.0, 1.0)
    assert bucket.take(1.0, 100.0)
    assert not bucket.take(1.0, 50.0)
    assert bucket.take(1.0, 51.0)


def test_serve_says_what_is_wrong_with_its_limits_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = tmp_path / "job.toml"
    job.write_text(JOB)
    limits = written(tmp_path, "devices = 0")
    assert main(["serve", str(job), "--state", str(tmp_path / "state"), "--limits", str(limits)]) == JobError.exit_code
    assert "Expected `int` >= 1 - at `$.devices`" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()
