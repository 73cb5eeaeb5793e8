"""The guide to Home Assistant: its commands work or can be typed, its table names what is published."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

import device_runtime.cli
import mas_edge.cli
from device_runtime.home_assistant import HomeAssistant
from tests.docs.pages import ROOT, blocks, in_ticks, prose, rows

GUIDE = ROOT / "docs" / "guides" / "home-assistant.md"


def test_the_commands_of_the_guide_work_or_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = []
    for block in blocks(GUIDE):
        for line in block.text.splitlines():
            program, *words = shlex.split(line)
            if program == "mas-edge-device":
                device_runtime.cli.build_parser().parse_args(words)
            elif words[0] == "serve":
                mas_edge.cli.build_parser().parse_args(words)
            else:
                assert mas_edge.cli.main(words) == 0, line
                done.append(words[1])
    assert done == ["init", "invite"]


def test_the_guide_names_the_sensors_their_states_and_the_topics() -> None:
    home = HomeAssistant("PREFIX", "FLEET", "NAME", model="", runtime="")
    components = json.loads(home.config())["components"].values()
    shown = rows(prose(GUIDE))
    assert [row[0] for row in shown] == [component["name"] for component in components]
    (training,) = (component for component in components if component["name"] == "Training")
    assert set(in_ticks(shown[0][1])) == set(training["options"])
    assert f"`{home.config_topic}`" in prose(GUIDE)


def test_every_file_that_the_guide_names_is_there() -> None:
    for text in in_ticks(prose(GUIDE)):
        if text.startswith("broker/"):
            assert (ROOT / text).exists(), text
