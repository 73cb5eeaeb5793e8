"""The guide to staged deployment: its numbers, words and files are those of the code."""

from __future__ import annotations

import re

from device_runtime.regression import MOST_SAMPLES
from device_runtime.slots import RECORD
from mas_edge.federation.rollout import RolloutSpec
from tests.docs.pages import ROOT, rows, section

GUIDE = ROOT / "docs" / "guides" / "rollout.md"


def test_the_defaults_are_those_of_the_code() -> None:
    page, spec = GUIDE.read_text(), RolloutSpec(shares=[1.0])
    shown = {name: float(number) for name, number in re.findall(r"`--([\w-]+)` seconds \((\d+)\)", page)}
    assert shown == {"soak": spec.soak_s, "answer": spec.answer_s, "max-latency": spec.max_latency_s}
    assert f"up to {MOST_SAMPLES}," in page


def test_the_words_are_those_of_the_command() -> None:
    words = re.findall(r"`(\w+)`", " ".join(row[0] for row in rows(section(GUIDE, "On the server"))))
    assert words == ["pause", "resume", "abort", "rollback"]
    assert RECORD in section(GUIDE, "On the device")
