"""What the guide to a fleet's identity says in its text can be typed; the threat model names the topics of the code."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import device_runtime.cli
import mas_edge.cli
from mas_edge.protocol.topics import Topics
from tests.docs.pages import ROOT, in_ticks, prose, rows, section

GUIDE, MODEL = ROOT / "docs" / "guides" / "security.md", ROOT / "docs" / "threat-model.md"


def test_the_commands_in_the_text_of_the_guide_can_be_typed() -> None:
    for text in in_ticks(prose(GUIDE)):
        words = shlex.split(text)
        if words[0] == "mas-edge-device" and len(words) > 1:
            device_runtime.cli.build_parser().parse_args(words[1:])
        elif words[0] == "mas-edge" and len(words) > 1:
            mas_edge.cli.build_parser().parse_args(words[1:])


def test_the_threat_model_says_what_a_device_may() -> None:
    (device,) = (row for row in rows(section(MODEL, "Who may do what")) if row[0] == "device")
    topics = Topics("f")
    own = [topics.birth("d"), topics.status("d"), topics.response("d"), topics.upload("d")]
    own += [topics.command("d"), topics.chunk("d")]
    assert in_ticks(device[2]) == [topic.rpartition("/")[2] for topic in own]


@pytest.mark.parametrize("page", [GUIDE, MODEL, ROOT / "SECURITY.md"])
def test_no_line_promises_a_file_that_is_not_there(page: Path) -> None:
    for text in in_ticks(page.read_text()):
        if text.startswith(("tools/", "docs/", "broker/", "tests/", "mas_edge/")):
            assert (ROOT / text).exists(), text


DEFENDED = rows(section(MODEL, "Defended"))


@pytest.mark.parametrize("line", DEFENDED, ids=[line[0][:40] for line in DEFENDED])
def test_every_claim_of_the_threat_model_names_tests_that_are_there(line: list[str]) -> None:
    _, _, tests, through = line
    places = tests.split(";")
    for place in places:
        file, *names = in_ticks(place)
        heads = [text for text in (ROOT / file).read_text().splitlines() if text.startswith("def test_")]
        assert names, f"{file}: which of its tests?"
        for name in names:
            assert any(name in head for head in heads), f"{file} has no test called ...{name}..."
    assert through in ("-", "broker", "HTTPS", "HTTP", "broker, HTTPS")
